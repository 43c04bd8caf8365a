// A vCenter for the tests: govmomi's simulator, with the calls that it lacks answered from files.
//
//	vcsim-psod HOSTS CLUSTERS FOLDER
//
// FOLDER/packages.json, modules.json, vmkernel.log, hostd.log are every host's answers; events.json are events to tell;
// faults.json names faults to make: {"expire_after": calls, "no_permission": ["packages"], "endless_log": true}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

var folder string

type faults struct {
	NoPermission []string `json:"no_permission"`
	EndlessLog   bool     `json:"endless_log"`
	Silent       string   `json:"silent"`
}

var made faults

func denied(what string) bool {
	for _, one := range made.NoPermission {
		if one == what {
			return true
		}
	}
	return false
}

func noPermission(on types.ManagedObjectReference, privilege string) *soap.Fault {
	return simulator.Fault("Permission to perform this operation was denied.", &types.NoPermission{Object: on, PrivilegeId: privilege})
}

func read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return nil
	}
	return data
}

type imageManager struct {
	mo.HostImageConfigManager
}

func (m *imageManager) FetchSoftwarePackages(req *types.FetchSoftwarePackages) soap.HasFault {
	body := &methods.FetchSoftwarePackagesBody{}
	if denied("packages") {
		body.Fault_ = noPermission(req.This, "Host.Config.Image")
		return body
	}
	var rows []struct{ Name, Version, Vendor string }
	json.Unmarshal(read("packages.json"), &rows)
	res := &types.FetchSoftwarePackagesResponse{}
	built := time.Date(2013, 9, 18, 0, 0, 0, 0, time.UTC)
	for _, row := range rows {
		res.Returnval = append(res.Returnval, types.SoftwarePackage{
			Name: row.Name, Version: row.Version, Vendor: row.Vendor, Type: "bootbank", AcceptanceLevel: "partner", CreationDate: &built,
		})
	}
	body.Res = res
	return body
}

type moduleSystem struct {
	mo.HostKernelModuleSystem
}

func (m *moduleSystem) QueryModules(req *types.QueryModules) soap.HasFault {
	body := &methods.QueryModulesBody{}
	if denied("modules") {
		body.Fault_ = noPermission(req.This, "Host.Config.Settings")
		return body
	}
	var rows []struct {
		Name, Version string
		Loaded        bool
	}
	json.Unmarshal(read("modules.json"), &rows)
	res := &types.QueryModulesResponse{}
	for i, row := range rows {
		res.Returnval = append(res.Returnval, types.KernelModuleInfo{
			Id: int32(i + 1), Name: row.Name, Version: row.Version, Loaded: row.Loaded, Enabled: true, Filename: row.Name,
		})
	}
	body.Res = res
	return body
}

type diagnosticManager struct {
	mo.DiagnosticManager
}

func (m *diagnosticManager) QueryDescriptions(req *types.QueryDescriptions) soap.HasFault {
	body := &methods.QueryDescriptionsBody{}
	if denied("logs") {
		body.Fault_ = noPermission(req.This, "Global.Diagnostics")
		return body
	}
	res := &types.QueryDescriptionsResponse{}
	for _, key := range []string{"hostd", "vmkernel"} {
		res.Returnval = append(res.Returnval, types.DiagnosticManagerLogDescriptor{
			Key: key, FileName: key + ".log", Creator: key, Format: "plain", MimeType: "text/plain", Info: &types.Description{Label: key, Summary: key},
		})
	}
	body.Res = res
	return body
}

func (m *diagnosticManager) BrowseDiagnosticLog(req *types.BrowseDiagnosticLog) soap.HasFault {
	lines := strings.Split(strings.TrimSuffix(string(read(req.Key+".log")), "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		lines = nil
	}
	start := int(req.Start)
	if start < 1 {
		start = 1
	}
	most := 500
	if req.Lines > 0 && int(req.Lines) < most {
		most = int(req.Lines)
	}
	var page []string
	for at := start - 1; len(page) < most && (made.EndlessLog || at < len(lines)); at++ {
		if at < len(lines) {
			page = append(page, lines[at])
		} else {
			page = append(page, strings.Repeat("x", 4096))
		}
	}
	end := start + len(page) + 7 // a real one is not to be believed here either
	return &methods.BrowseDiagnosticLogBody{Res: &types.BrowseDiagnosticLogResponse{
		Returnval: types.DiagnosticManagerLogHeader{LineStart: int32(start), LineEnd: int32(end), LineText: page},
	}}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	hosts, err := strconv.Atoi(os.Args[1])
	check(err)
	clusters, err := strconv.Atoi(os.Args[2])
	check(err)
	folder = os.Args[3]
	json.Unmarshal(read("faults.json"), &made)

	model := simulator.VPX()
	model.Host, model.Cluster, model.ClusterHost, model.Machine = 0, clusters, hosts/clusters, 1
	check(model.Create())
	content := &model.ServiceContent
	if made.Silent == "" {
		made.Silent = "-"
	}

	diagnostics := &diagnosticManager{}
	diagnostics.Self = types.ManagedObjectReference{Type: "DiagnosticManager", Value: "DiagnosticManager"}
	content.DiagnosticManager = &diagnostics.Self
	simulator.Map.Put(diagnostics)
	instance := simulator.Map.Get(types.ManagedObjectReference{Type: "ServiceInstance", Value: "ServiceInstance"}).(*simulator.ServiceInstance)
	instance.Content.DiagnosticManager = &diagnostics.Self

	names := map[string]string{}
	json.Unmarshal(read("names.json"), &names) // place of a host, from 0 -> its name
	at := 0
	for _, object := range simulator.Map.All("HostSystem") {
		host := object.(*simulator.HostSystem)
		image := &imageManager{}
		image.Self = types.ManagedObjectReference{Type: "HostImageConfigManager", Value: "image-" + host.Self.Value}
		simulator.Map.Put(image)
		modules := &moduleSystem{}
		modules.Self = types.ManagedObjectReference{Type: "HostKernelModuleSystem", Value: "modules-" + host.Self.Value}
		simulator.Map.Put(modules)
		host.ConfigManager.ImageConfigManager = &image.Self
		host.ConfigManager.KernelModuleSystem = &modules.Self
		boot := time.Now().UTC().Add(-20 * 24 * time.Hour)
		host.Runtime.BootTime = &boot
		if name, ok := names[strconv.Itoa(at)]; ok {
			host.Name = name
			host.Summary.Config.Name = name
		}
		at++
	}

	var events []struct {
		Host, Kind, Text string
		HoursAgo         float64 `json:"hours_ago"`
	}
	json.Unmarshal(read("events.json"), &events)
	manager := simulator.Map.EventManager()
	ctx := &simulator.Context{Context: context.Background(), Session: &simulator.Session{UserSession: types.UserSession{UserName: "test"}}}
	for _, one := range events {
		for _, object := range simulator.Map.All("HostSystem") {
			host := object.(*simulator.HostSystem)
			if host.Name != one.Host {
				continue
			}
			event := &types.EventEx{EventTypeId: one.Kind, Message: one.Text}
			event.Host = &types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: host.Name}, Host: host.Self}
			event.FullFormattedMessage = one.Text
			manager.PostEvent(ctx, &types.PostEvent{EventToPost: event})
			event.CreatedTime = time.Now().UTC().Add(-time.Duration(one.HoursAgo * float64(time.Hour)))
		}
	}

	model.Service.TLS = nil
	if len(os.Args) > 4 {
		model.Service.TLS = tlsConfig(os.Args[4], os.Args[5])
	}
	server := model.Service.NewServer()
	fmt.Println(server.URL.Host)
	os.Stdout.Sync()
	select {}
}

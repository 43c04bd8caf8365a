package main

import (
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func denied(what string, on types.ManagedObjectReference, privilege string) *soap.Fault {
	for _, one := range made.NoPermission {
		if one == what {
			return simulator.Fault("Permission to perform this operation was denied.", &types.NoPermission{Object: on, PrivilegeId: privilege})
		}
	}
	return nil
}

// nothing keeps a caller waiting for longer than any test.
func nothing(host *simulator.HostSystem) {
	if made.Silent != "" && host.Name == made.Silent {
		time.Sleep(5 * time.Minute)
	}
}

type imageManager struct {
	mo.HostImageConfigManager
	host *simulator.HostSystem
}

func (m *imageManager) FetchSoftwarePackages(req *types.FetchSoftwarePackages) soap.HasFault {
	nothing(m.host)
	body := &methods.FetchSoftwarePackagesBody{Fault_: denied("packages", req.This, "Host.Config.Image")}
	var rows []struct{ Name, Version, Vendor string }
	decode("packages.json", &rows)
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
	host *simulator.HostSystem
}

func (m *moduleSystem) QueryModules(req *types.QueryModules) soap.HasFault {
	nothing(m.host)
	body := &methods.QueryModulesBody{Fault_: denied("modules", req.This, "Host.Config.Settings")}
	var rows []struct {
		Name, Version string
		Loaded        bool
	}
	decode("modules.json", &rows)
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

func host(on *types.ManagedObjectReference) *simulator.HostSystem {
	return simulator.Map.Get(*on).(*simulator.HostSystem)
}

func (m *diagnosticManager) QueryDescriptions(req *types.QueryDescriptions) soap.HasFault {
	nothing(host(req.Host))
	body := &methods.QueryDescriptionsBody{Fault_: denied("logs", req.This, "Global.Diagnostics")}
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
	note("log %s from %d", req.Key, req.Start)
	lines := strings.Split(strings.TrimSuffix(string(read(req.Key+".log")), "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		lines = nil
	}
	start := int(req.Start)
	if start < 1 {
		start = 1
	}
	if made.StrictLog && start > len(lines) {
		return &methods.BrowseDiagnosticLogBody{Fault_: simulator.Fault("start", &types.InvalidArgument{InvalidProperty: "start"})}
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

var (
	making     = map[string]int{} // cluster -> bundles that are being made
	makingLock sync.Mutex
)

func (m *diagnosticManager) GenerateLogBundlesTask(req *types.GenerateLogBundles_Task) soap.HasFault {
	body := &methods.GenerateLogBundles_TaskBody{Fault_: denied("bundles", req.This, "Global.Diagnostics")}
	if body.Fault_ != nil {
		return body
	}
	of := host(&req.Host[0])
	task := simulator.CreateTask(of, "generateLogBundles", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		cluster := of.Parent.Value
		makingLock.Lock()
		making[cluster]++
		note("bundle of %s, %d at once in %s", of.Name, making[cluster], cluster)
		makingLock.Unlock()
		time.Sleep(300 * time.Millisecond)
		makingLock.Lock()
		making[cluster]--
		makingLock.Unlock()
		if of.Name == made.BundleFails {
			return nil, &types.RuntimeFault{}
		}
		return types.ArrayOfDiagnosticManagerBundleInfo{DiagnosticManagerBundleInfo: []types.DiagnosticManagerBundleInfo{
			{System: &of.Self, Url: "https://*/diagnostics/" + of.Self.Value + ".tgz"},
		}}, nil
	})
	go task.Run()
	body.Res = &types.GenerateLogBundles_TaskResponse{Returnval: task.Self}
	return body
}

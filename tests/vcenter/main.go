// A vCenter for the tests: govmomi's simulator, with the calls that it lacks answered from files.
//
//	vcsim-psod HOSTS CLUSTERS FOLDER CERTIFICATE KEY [CERTIFICATE KEY]
//
// FOLDER holds every host's answers: packages.json, modules.json, vmkernel.log, hostd.log, bundle.tgz (or
// bundle-NAME.tgz); what differs from host to
// host is in differ.json (place of a host in the order of names, from 0 -> its name, boot, version, build, connection). events.json are the events, faults.json
// the faults to make. What was called is written to calls.log, one line a call. The second certificate is shown once `new_certificate_after`
// calls have come.
package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

var folder string

type faults struct {
	NoPermission        []string `json:"no_permission"`
	EndlessLog          bool     `json:"endless_log"`
	StrictLog           bool     `json:"strict_log"`            // a line behind the end is refused
	Silent              string   `json:"silent"`                // a host that never answers
	Password            string   `json:"password"`              // the only one that is right
	ExpireAfter         []int    `json:"expire_after"`          // calls after which the session is ended
	NewCertificateAfter int      `json:"new_certificate_after"` // calls
	LoseCollectorAfter  int      `json:"lose_collector_after"`  // pages of events; once
	BadEvent            string   `json:"bad_event"`             // a page with an event of this kind cannot be read
	NoTypes             bool     `json:"no_types"`              // the filter by types is refused
	BundleFails         string   `json:"bundle_fails"`          // the host whose bundle cannot be made
	SlowCalls           int      `json:"slow_calls"`            // milliseconds that each call takes
}

var made faults

type hostAnswers struct {
	Name, Version, Build, Connection string
	Boot                             *time.Time
}

func read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return nil
	}
	return data
}

func decode(name string, into interface{}) {
	if data := read(name); data != nil {
		check(json.Unmarshal(data, into))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func reference(kind, value string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: kind, Value: value}
}

func main() {
	hosts, err := strconv.Atoi(os.Args[1])
	check(err)
	clusters, err := strconv.Atoi(os.Args[2])
	check(err)
	folder = os.Args[3]
	decode("faults.json", &made)

	model := simulator.VPX()
	model.Host, model.Cluster, model.ClusterHost, model.Machine = 0, clusters, hosts/clusters, 1
	check(model.Create())

	diagnostics := &diagnosticManager{}
	diagnostics.Self = reference("DiagnosticManager", "DiagnosticManager")
	simulator.Map.Put(diagnostics)
	instance := simulator.Map.Get(reference("ServiceInstance", "ServiceInstance")).(*simulator.ServiceInstance)
	instance.Content.DiagnosticManager = &diagnostics.Self

	differ := map[string]hostAnswers{}
	decode("differ.json", &differ)
	all := simulator.Map.All("HostSystem")
	sort.Slice(all, func(i, j int) bool { return all[i].Entity().Name < all[j].Entity().Name })
	for at, object := range all {
		host := object.(*simulator.HostSystem)
		image := &imageManager{host: host}
		image.Self = reference("HostImageConfigManager", "image-"+host.Self.Value)
		simulator.Map.Put(image)
		modules := &moduleSystem{host: host}
		modules.Self = reference("HostKernelModuleSystem", "modules-"+host.Self.Value)
		simulator.Map.Put(modules)
		host.ConfigManager.ImageConfigManager = &image.Self
		host.ConfigManager.KernelModuleSystem = &modules.Self
		boot := time.Now().UTC().Add(-20 * 24 * time.Hour)
		host.Runtime.BootTime = &boot
		answer(host, differ[strconv.Itoa(at)])
	}
	serve(model)
}

func answer(host *simulator.HostSystem, told hostAnswers) {
	product := *host.Summary.Config.Product
	host.Summary.Config.Product = &product
	if told.Name != "" {
		host.Name, host.Summary.Config.Name = told.Name, told.Name
	}
	if told.Boot != nil {
		host.Runtime.BootTime = told.Boot
	}
	if told.Version != "" {
		product.Version = told.Version
	}
	if told.Build != "" {
		product.Build = told.Build
	}
	if told.Connection != "" {
		host.Runtime.ConnectionState = types.HostSystemConnectionState(told.Connection)
	}
}

package main

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// The simulator's own event manager heeds neither time nor type and gives the newest first; its requests are sent to this one instead.
const eventsOf = "PsodEventManager"

type eventManager struct {
	mo.EventManager
	events []types.BaseEvent // oldest first
	lost   bool
}

type told struct {
	Kind, Host, Failed, Vm, Cluster, Text string
	HoursAgo                              float64 `json:"hours_ago"`
	At                                    *time.Time
}

func newEventManager() *eventManager {
	m := &eventManager{}
	m.Self = reference("EventManager", eventsOf)
	m.MaxCollector = 32
	var rows []told
	decode("events.json", &rows)
	known := map[string]bool{}
	for i, row := range rows {
		event := row.event()
		common := event.GetEvent()
		common.Key = int32(i + 1)
		m.events = append(m.events, event)
		if !known[row.Kind] {
			known[row.Kind] = true
			detail := types.EventDescriptionEventDetail{Key: row.Kind, Category: "info", FullFormat: "words"}
			if strings.Contains(row.Kind, ".") {
				detail.Key, detail.FullFormat = "EventEx", row.Kind+"|words"
			}
			m.Description.EventInfo = append(m.Description.EventInfo, detail)
		}
	}
	sort.SliceStable(m.events, func(i, j int) bool {
		return m.events[i].GetEvent().CreatedTime.Before(m.events[j].GetEvent().CreatedTime)
	})
	return m
}

func (row told) event() types.BaseEvent {
	var event types.BaseEvent = &types.EventEx{EventTypeId: row.Kind, Message: row.Text}
	if !strings.Contains(row.Kind, ".") {
		kind, ok := types.TypeFunc()(row.Kind)
		if !ok {
			panic("no such event: " + row.Kind)
		}
		event = reflect.New(kind).Interface().(types.BaseEvent)
	}
	common := event.GetEvent()
	common.CreatedTime = time.Now().UTC().Add(-time.Duration(row.HoursAgo * float64(time.Hour)))
	if row.At != nil {
		common.CreatedTime = *row.At
	}
	common.FullFormattedMessage, common.UserName = row.Text, "test"
	if row.Host != "" {
		common.Host = aHost(row.Host)
	}
	if row.Vm != "" {
		common.Vm = &types.VmEventArgument{EntityEventArgument: types.EntityEventArgument{Name: row.Vm}, Vm: reference("VirtualMachine", "vm-1")}
	}
	if row.Cluster != "" {
		for _, object := range simulator.Map.All("ClusterComputeResource") {
			if object.Entity().Name == row.Cluster {
				common.ComputeResource = &types.ComputeResourceEventArgument{
					EntityEventArgument: types.EntityEventArgument{Name: row.Cluster}, ComputeResource: object.Reference(),
				}
			}
		}
	}
	if failed, ok := event.(*types.DasHostFailedEvent); ok {
		failed.FailedHost = *aHost(row.Failed)
	}
	return event
}

func aHost(name string) *types.HostEventArgument {
	found := reference("HostSystem", "host-gone")
	for _, object := range simulator.Map.All("HostSystem") {
		if object.(*simulator.HostSystem).Name == name {
			found = object.Reference()
		}
	}
	return &types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: name}, Host: found}
}

func (m *eventManager) CreateCollectorForEvents(ctx *simulator.Context, req *types.CreateCollectorForEvents) soap.HasFault {
	body := &methods.CreateCollectorForEventsBody{}
	filter := req.Filter
	if made.NoTypes && len(filter.EventTypeId) > 0 {
		body.Fault_ = simulator.Fault("A specified parameter was not correct: filter.eventTypeId", &types.InvalidArgument{InvalidProperty: "filter.eventTypeId"})
		return body
	}
	collector := &eventCollector{m: m}
	for _, event := range m.events {
		if matches(event, filter) {
			collector.events = append(collector.events, event)
		}
	}
	note("events from %v of %d types: %d", filter.Time != nil, len(filter.EventTypeId), len(collector.events))
	collector.Self = reference("EventHistoryCollector", fmt.Sprintf("collector-%d", time.Now().UnixNano()))
	body.Res = &types.CreateCollectorForEventsResponse{Returnval: ctx.Session.Put(collector).Reference()} // it ends with its session
	return body
}

func matches(event types.BaseEvent, filter types.EventFilterSpec) bool {
	when := event.GetEvent().CreatedTime
	if span := filter.Time; span != nil {
		if (span.BeginTime != nil && when.Before(*span.BeginTime)) || (span.EndTime != nil && when.After(*span.EndTime)) {
			return false
		}
	}
	kind := reflect.TypeOf(event).Elem().Name()
	if ex, ok := event.(*types.EventEx); ok {
		kind = ex.EventTypeId
	}
	for _, wanted := range filter.EventTypeId {
		if wanted == kind {
			return true
		}
	}
	return len(filter.EventTypeId) == 0
}

type eventCollector struct {
	mo.EventHistoryCollector
	m      *eventManager
	events []types.BaseEvent
	at     int
	pages  int
}

func (c *eventCollector) ReadNextEvents(ctx *simulator.Context, req *types.ReadNextEvents) soap.HasFault {
	body := &methods.ReadNextEventsBody{}
	c.pages++
	if made.LoseCollectorAfter > 0 && c.pages > made.LoseCollectorAfter && !c.m.lost {
		c.m.lost = true
		body.Fault_ = simulator.Fault("The object has already been deleted or has not been completely created", &types.ManagedObjectNotFound{Obj: c.Self})
		return body
	}
	end := c.at + int(req.MaxCount)
	if end > len(c.events) {
		end = len(c.events)
	}
	body.Res = &types.ReadNextEventsResponse{Returnval: c.events[c.at:end]}
	c.at = end
	return body
}

func (c *eventCollector) DestroyCollector(ctx *simulator.Context, req *types.DestroyCollector) soap.HasFault {
	ctx.Session.Remove(req.This)
	return &methods.DestroyCollectorBody{Res: &types.DestroyCollectorResponse{}}
}

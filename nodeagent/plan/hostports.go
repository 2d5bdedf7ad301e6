// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// hostPorts says what the host ports of this node lead to. A CNI's portmap plugin translates them behind the programs that judge
// what pods send, so these must know: else a pod would reach the pods behind its node's host ports, whatever its policies say of
// them. Each is a service of its own, left to the node, under loopback's address: there bpf/lib/leads.h looks for all of the
// node's, and Services have none. It is judged beside the node itself, so that nobody opens the node by claiming a port of it.
type hostPorts struct {
	cluster  string
	services *service.Planner
}

var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// set takes a pod of this node; nil if it was none before, or isn't any more.
func (h hostPorts) set(before, now *record.Endpoint) {
	names := map[string]bool{}
	if now != nil {
		for _, p := range now.HostPorts {
			names[h.serve(now, p)] = true
		}
	}
	if before == nil {
		return
	}
	for _, p := range before.HostPorts {
		if name := nameOf(before, p); !names[name] {
			h.services.SetService(h.cluster, before.Namespace, name, nil)
			h.services.SetSlice(h.cluster, before.Namespace, name, nil)
		}
	}
}

// nameOf names the service of a host port as no Service is named. Where two lead from one port to others, nobody knows which of
// them it leads to.
func nameOf(e *record.Endpoint, p record.HostPort) string {
	return fmt.Sprintf("host port %d/%s of %s, to %d", p.Port, p.Protocol, e.Name, p.Target)
}

func (h hostPorts) serve(e *record.Endpoint, p record.HostPort) (name string) {
	name = nameOf(e, p)
	slice := &record.Slice{Namespace: e.Namespace, Service: name, Name: name, Ports: []record.Port{{Protocol: p.Protocol, Number: p.Target}}}
	for _, a := range e.Addresses {
		slice.Backends = append(slice.Backends, record.Backend{Addr: a, Ready: true})
	}
	h.services.SetService(h.cluster, e.Namespace, name, &record.Service{
		Namespace: e.Namespace, Name: name, External: loopback, ExternalByProxy: true, Ports: []record.Port{{Protocol: p.Protocol, Number: p.Port}},
	})
	h.services.SetSlice(h.cluster, e.Namespace, name, slice)
	return name
}

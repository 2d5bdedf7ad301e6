// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// hostPorts says what the host ports of the own cluster's nodes lead to. A CNI's portmap plugin translates them behind the
// programs that judge what pods send, so these must know: else a pod that may reach a node would reach the pods behind its
// host ports, whatever its policies say of them. Each host port is a service of its own, which is left to the node.
type hostPorts struct {
	cluster, node string // the own ones
	services      *service.Planner
	nodes         map[string]*record.Node
	pods          map[podName]*record.Endpoint // with host ports
	byNode        map[string]map[podName]bool
	served        map[podName][]string // names of services
	outdated      map[podName]bool
}

type podName struct{ namespace, name string }

// anyOwn stands for all addresses that this node has, those of bridges too: bpf/lib/leads.h looks there for them.
var anyOwn = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

func newHostPorts(cfg Config, services *service.Planner) *hostPorts {
	return &hostPorts{
		cluster: cfg.Cluster, node: cfg.Node, services: services, nodes: map[string]*record.Node{}, pods: map[podName]*record.Endpoint{},
		byNode: map[string]map[podName]bool{}, served: map[podName][]string{}, outdated: map[podName]bool{},
	}
}

func (h *hostPorts) setNode(name string, n *record.Node) {
	h.nodes[name] = n
	if n == nil {
		delete(h.nodes, name)
	}
	for pod := range h.byNode[name] {
		h.outdated[pod] = true
	}
}

func (h *hostPorts) setPod(before, now *record.Endpoint) {
	if before != nil && len(before.HostPorts) > 0 {
		pod := podName{before.Namespace, before.Name}
		h.outdated[pod] = true
		delete(h.pods, pod)
		if delete(h.byNode[before.Node], pod); len(h.byNode[before.Node]) == 0 {
			delete(h.byNode, before.Node)
		}
	}
	if now != nil && len(now.HostPorts) > 0 {
		pod := podName{now.Namespace, now.Name}
		h.outdated[pod] = true
		h.pods[pod] = now
		if h.byNode[now.Node] == nil {
			h.byNode[now.Node] = map[podName]bool{}
		}
		h.byNode[now.Node][pod] = true
	}
}

// step gives the services of what changed.
func (h *hostPorts) step() {
	for pod := range h.outdated {
		was := h.served[pod]
		delete(h.served, pod)
		if e := h.pods[pod]; e != nil {
			for _, p := range e.HostPorts {
				h.served[pod] = append(h.served[pod], h.serve(e, p))
			}
		}
		for _, name := range was {
			if !slices.Contains(h.served[pod], name) {
				h.services.SetService(h.cluster, pod.namespace, name, nil)
				h.services.SetSlice(h.cluster, pod.namespace, name, nil)
			}
		}
	}
	clear(h.outdated)
}

// serve makes the service of a host port, and names it as no Service is named.
func (h *hostPorts) serve(e *record.Endpoint, p record.HostPort) (name string) {
	name = fmt.Sprintf("host port %d/%s of %s", p.Port, p.Protocol, e.Name)
	svc := &record.Service{Namespace: e.Namespace, ExternalByProxy: true}
	switch {
	case p.Addr.IsValid():
		name += " at " + p.Addr.String()
		svc.External = []netip.Addr{p.Addr}
	default:
		if n := h.nodes[e.Node]; n != nil {
			svc.External = append(svc.External, n.Addresses...)
		}
		if e.Node == h.node {
			svc.External = append(svc.External, anyOwn...)
		}
	}
	svc.Name, svc.Ports = name, []record.Port{{Protocol: p.Protocol, Number: p.Port}}
	slice := &record.Slice{Namespace: e.Namespace, Service: name, Name: name, Ports: []record.Port{{Protocol: p.Protocol, Number: p.Target}}}
	for _, a := range e.Addresses {
		slice.Backends = append(slice.Backends, record.Backend{Addr: a, Ready: true})
	}
	h.services.SetService(h.cluster, e.Namespace, name, svc)
	h.services.SetSlice(h.cluster, e.Namespace, name, slice)
	return name
}

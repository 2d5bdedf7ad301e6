// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// An EndpointSlice of up to wholeSlice endpoints is one record; a larger one is cut into parts of about as many, so
// that one backend that changes costs less than 1 KiB in the store and on each node's stream.
const wholeSlice = 8

// partsOf says into how many parts an EndpointSlice is cut; 0: it travels whole. It is a power of two, so that a slice
// that grows is cut anew at few sizes only. Kubernetes allows 1,000 endpoints a slice.
func partsOf(eps *discoveryv1.EndpointSlice) uint32 {
	n := len(eps.Endpoints)
	if n <= wholeSlice {
		return 0
	}
	parts := uint32(wholeSlice)
	for int(parts)*wholeSlice < n {
		parts *= 2
	}
	return parts
}

// partOf says in which part an endpoint travels. It depends on the endpoint alone, so that the others stay where they are
// when one comes or goes.
func partOf(e discoveryv1.Endpoint, parts uint32) uint32 {
	h := fnv.New32a()
	for _, addr := range e.Addresses[:min(1, len(e.Addresses))] {
		_, _ = h.Write([]byte(addr)) // a hash never fails
	}
	return 1 + h.Sum32()%parts
}

// touchSlice marks all records that an EndpointSlice travels in.
func (s *State) touchSlice(k nsName, eps *discoveryv1.EndpointSlice) {
	for part := range 1 + partsOf(eps) {
		s.touch(ref{kind: record.KindSlice, namespace: k.namespace, name: k.name, part: part})
	}
}

// cut is an EndpointSlice's endpoints, as indexes, by the part they travel in. Each part is a record of its own; without this
// each would cost a look at all endpoints.
type cut struct {
	of    *discoveryv1.EndpointSlice
	parts map[uint32][]int
}

func cutUp(eps *discoveryv1.EndpointSlice) cut {
	n := partsOf(eps)
	c := cut{of: eps, parts: make(map[uint32][]int, n+1)}
	for i, e := range eps.Endpoints {
		part := uint32(0)
		if n > 0 {
			part = partOf(e, n)
		}
		c.parts[part] = append(c.parts[part], i)
	}
	return c
}

// record mirrors a part of the EndpointSlice (0: the whole); nil for one that belongs to no Service or holds host names, and
// for a part that it isn't cut into.
func (c cut) record(cluster string, part uint32) *recordv1.Record {
	owner, endpoints := c.of.Labels[discoveryv1.LabelServiceName], c.parts[part]
	if owner == "" || c.of.AddressType == discoveryv1.AddressTypeFQDN || len(endpoints) == 0 && (part > 0 || len(c.of.Endpoints) > 0) {
		return nil
	}
	s := &recordv1.BackendSlice{Namespace: c.of.Namespace, Service: owner, Name: c.of.Name, Part: part}
	for _, p := range c.of.Ports {
		if p.Port == nil {
			continue // "all ports", which no Service can ask for
		}
		port := &recordv1.ServicePort{Protocol: string(corev1.ProtocolTCP), Port: uint32(*p.Port)}
		if p.Name != nil {
			port.Name = *p.Name
		}
		if p.Protocol != nil {
			port.Protocol = protocol(*p.Protocol)
		}
		s.Ports = append(s.Ports, port)
	}
	for _, i := range endpoints {
		s.Backends = append(s.Backends, backend(c.of.Endpoints[i]))
	}
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_BackendSlice{BackendSlice: s}}
}

func backend(e discoveryv1.Endpoint) *recordv1.Backend {
	b := &recordv1.Backend{Addresses: slices.Clone(e.Addresses)}
	// As the API says: unknown readiness counts as ready, serving follows ready, terminating as not.
	b.Ready = e.Conditions.Ready == nil || *e.Conditions.Ready
	b.Serving = b.Ready
	if e.Conditions.Serving != nil {
		b.Serving = *e.Conditions.Serving
	}
	b.Terminating = e.Conditions.Terminating != nil && *e.Conditions.Terminating
	if e.NodeName != nil {
		b.Node = *e.NodeName
	}
	if e.Zone != nil {
		b.Zone = *e.Zone
	}
	return b
}

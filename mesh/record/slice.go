// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Slice mirrors one EndpointSlice, or a part of a large one.
type Slice struct {
	Namespace, Service, Name string
	Part                     uint32 // 0: the whole
	Ports                    []Port // the pods', matched to the service's by name
	Backends                 []Backend
}

// Backend is one pod behind a service.
type Backend struct {
	// Addr is the first address; discovery.k8s.io/v1 gives no meaning to the others.
	Addr                        netip.Addr
	Ready, Serving, Terminating bool
	Node, Zone                  string
}

// Kind is KindSlice.
func (*Slice) Kind() string { return KindSlice }

func (s *Slice) path() (string, error) {
	path, err := namespaced("backend_slice", s.Namespace, s.Name)
	if s.Part > 0 {
		path = fmt.Sprintf("%s/%d", path, s.Part)
	}
	return path, err
}

type sliceReader struct{ *recordv1.BackendSlice }

func (r sliceReader) names() Object {
	return &Slice{Namespace: r.GetNamespace(), Service: r.GetService(), Name: r.GetName(), Part: r.GetPart()}
}

func (r sliceReader) parse() (Object, error) {
	s := &Slice{Namespace: intern(r.GetNamespace()), Service: intern(r.GetService()), Name: r.GetName(), Part: r.GetPart()}
	if err := checkSubdomain("backend_slice.service", s.Service); err != nil {
		return nil, err
	}
	var err error
	if s.Ports, err = parsePorts("backend_slice.ports", r.GetPorts()); err != nil {
		return nil, err
	}
	backends := r.GetBackends()
	if n := len(backends); n > maxBackends {
		return nil, reject(ReasonTooLarge, "backend_slice.backends", "has %d entries, more than %d", n, maxBackends)
	}
	s.Backends = make([]Backend, len(backends))
	for i, b := range backends {
		if s.Backends[i], err = parseBackend(b); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func parseBackend(b *recordv1.Backend) (Backend, error) {
	out := Backend{
		Ready: b.GetReady(), Serving: b.GetServing(), Terminating: b.GetTerminating(), Node: intern(b.GetNode()), Zone: intern(b.GetZone()),
	}
	addrs, err := parseAddrs("backend_slice.backends.addresses", b.GetAddresses())
	if err != nil {
		return out, err
	}
	out.Addr = addrs[0]
	if out.Node != "" {
		if err := checkSubdomain("backend_slice.backends.node", out.Node); err != nil {
			return out, err
		}
	}
	return out, checkText("backend_slice.backends.zone", out.Zone)
}

func (s *Slice) check(c Claim) error {
	if err := c.checkExported("backend_slice.namespace", s.Namespace); err != nil {
		return err
	}
	for _, b := range s.Backends {
		if err := c.checkPodAddress("backend_slice.backends.addresses", b.Addr); err != nil {
			return err
		}
	}
	return nil
}

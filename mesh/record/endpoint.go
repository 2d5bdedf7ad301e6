// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"net/netip"
	"strings"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Endpoint is a pod with its own address (no host-network pods).
type Endpoint struct {
	Namespace, Name string
	Node            string
	Addresses       []netip.Addr
	Identity        uint32
	NamedPorts      NamedPorts
	HostPorts       []HostPort // only known in the own cluster
}

// HostPort is a port of the pod's node that leads to one of the pod's.
type HostPort struct {
	Protocol Protocol
	Port     uint16 // the node's
	Target   uint16 // the pod's
}

// Kind is KindEndpoint.
func (*Endpoint) Kind() string { return KindEndpoint }

func (e *Endpoint) path() (string, error) { return namespaced("endpoint", e.Namespace, e.Name) }

type endpointReader struct{ *recordv1.Endpoint }

func (r endpointReader) names() Object {
	return &Endpoint{Namespace: r.GetNamespace(), Name: r.GetName()}
}

func (r endpointReader) parse() (Object, error) {
	e := &Endpoint{Namespace: intern(r.GetNamespace()), Name: r.GetName(), Node: intern(r.GetNode()), Identity: r.GetIdentity()}
	var err error
	if e.Addresses, err = parseAddrs("endpoint.addresses", r.GetAddresses()); err != nil {
		return nil, err
	}
	if err := checkSubdomain("endpoint.node", e.Node); err != nil {
		return nil, err
	}
	named := r.GetNamedPorts()
	if n := len(named); n > maxPorts {
		return nil, reject(ReasonTooLarge, "endpoint.named_ports", "has %d entries, more than %d", n, maxPorts)
	}
	numbers := make(map[string]uint16, len(named))
	for k, port := range named {
		portName, protocol, ok := strings.Cut(k, "/")
		if _, known := parseProtocol(protocol); !ok || !known || !isLabel(portName, maxLabel) {
			return nil, reject(ReasonInvalidPort, "endpoint.named_ports", "%q is not name/PROTOCOL", short(k))
		}
		number, err := parsePort("endpoint.named_ports", port)
		if err != nil {
			return nil, err
		}
		numbers[k] = number
	}
	e.NamedPorts = NewNamedPorts(numbers)
	if e.HostPorts, err = parseHostPorts("endpoint.host_ports", r.GetHostPorts()); err != nil {
		return nil, err
	}
	return e, nil
}

func parseHostPorts(field string, in []*recordv1.HostPort) ([]HostPort, error) {
	if n := len(in); n > maxPorts {
		return nil, reject(ReasonTooLarge, field, "has %d entries, more than %d", n, maxPorts)
	}
	var out []HostPort
	for _, p := range in {
		proto, known := parseProtocol(p.GetProtocol())
		if !known {
			return nil, reject(ReasonInvalidPort, field, "protocol %q is none of TCP, UDP, SCTP", short(p.GetProtocol()))
		}
		h := HostPort{Protocol: proto}
		var err error
		if h.Port, err = parsePort(field, p.GetPort()); err != nil {
			return nil, err
		}
		if h.Target, err = parsePort(field, p.GetTarget()); err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

func (e *Endpoint) check(c Claim) error {
	for _, a := range e.Addresses {
		if err := c.checkPodAddress("endpoint.addresses", a); err != nil {
			return err
		}
	}
	return c.checkIdentityNumber("endpoint.identity", e.Identity)
}

func (c Claim) checkPodAddress(field string, a netip.Addr) error {
	if !c.OwnsAddress(a) {
		return reject(ReasonAddressOutside, field, "%s is not within the cluster's pod CIDRs", a)
	}
	return nil
}

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
	return e, nil
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

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"strings"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

func (c Claim) checkEndpoint(e *recordv1.Endpoint) error {
	if err := c.checkPodAddresses("endpoint.addresses", e.GetAddresses()); err != nil {
		return err
	}
	if err := c.checkIdentityNumber("endpoint.identity", e.GetIdentity()); err != nil {
		return err
	}
	if err := checkSubdomain("endpoint.node", e.GetNode()); err != nil {
		return err
	}
	if n := len(e.GetNamedPorts()); n > maxPorts {
		return reject(ReasonTooLarge, "endpoint.named_ports", "has %d entries, more than %d", n, maxPorts)
	}
	for k, port := range e.GetNamedPorts() {
		portName, protocol, ok := strings.Cut(k, "/")
		if !ok || !isLabel(portName, maxLabel) || !knownProtocol(protocol) {
			return reject(ReasonInvalidPort, "endpoint.named_ports", "%q is not name/PROTOCOL", short(k))
		}
		if err := checkPort("endpoint.named_ports", port); err != nil {
			return err
		}
	}
	return nil
}

func (c Claim) checkPodAddresses(field string, addresses []string) error {
	if n := len(addresses); n == 0 || n > maxAddresses {
		return reject(ReasonInvalidAddress, field, "has %d entries, want 1..%d", n, maxAddresses)
	}
	for _, s := range addresses {
		a, err := parseAddr(field, s)
		if err != nil {
			return err
		}
		if !c.OwnsAddress(a) {
			return reject(ReasonAddressOutside, field, "%s is not within the cluster's pod CIDRs", a)
		}
	}
	return nil
}

func (c Claim) checkService(s *recordv1.Service) error {
	if !c.exports(s.GetNamespace()) {
		return reject(ReasonNamespace, "service.namespace", "%s is not on the allowlist", s.GetNamespace())
	}
	if n := len(s.GetClusterIps()); n > maxAddresses {
		return reject(ReasonTooLarge, "service.cluster_ips", "has %d entries, more than %d", n, maxAddresses)
	}
	for _, ip := range s.GetClusterIps() {
		if _, err := parseAddr("service.cluster_ips", ip); err != nil {
			return err
		}
	}
	if _, known := recordv1.Affinity_name[int32(s.GetAffinity())]; !known {
		return reject(ReasonMalformed, "service.affinity", "%d is unknown", s.GetAffinity())
	}
	return checkServicePorts("service.ports", s.GetPorts())
}

func (c Claim) checkSlice(s *recordv1.BackendSlice) error {
	if !c.exports(s.GetNamespace()) {
		return reject(ReasonNamespace, "backend_slice.namespace", "%s is not on the allowlist", s.GetNamespace())
	}
	if err := checkSubdomain("backend_slice.service", s.GetService()); err != nil {
		return err
	}
	if err := checkServicePorts("backend_slice.ports", s.GetPorts()); err != nil {
		return err
	}
	if n := len(s.GetBackends()); n > maxBackends {
		return reject(ReasonTooLarge, "backend_slice.backends", "has %d entries, more than %d", n, maxBackends)
	}
	for _, b := range s.GetBackends() {
		if err := c.checkPodAddresses("backend_slice.backends.addresses", b.GetAddresses()); err != nil {
			return err
		}
		if b.GetNode() != "" {
			if err := checkSubdomain("backend_slice.backends.node", b.GetNode()); err != nil {
				return err
			}
		}
		if err := checkText("backend_slice.backends.zone", b.GetZone()); err != nil {
			return err
		}
	}
	return nil
}

func checkPolicy(p *recordv1.Policy) error {
	const field = "policy.spec_json"
	spec := p.GetSpecJson()
	if len(spec) > maxPolicy {
		return reject(ReasonTooLarge, field, "has %d bytes, more than %d", len(spec), maxPolicy)
	}
	if !json.Valid(spec) || !strings.HasPrefix(strings.TrimLeft(string(spec), " \t\r\n"), "{") {
		return reject(ReasonInvalidPolicy, field, "not a JSON object")
	}
	from := p.GetProvenance()
	for _, s := range []string{from.GetSource(), from.GetUrl(), from.GetRevision(), from.GetPath()} {
		if err := checkText("policy.provenance", s); err != nil {
			return err
		}
	}
	return nil
}

func checkServicePorts(field string, ports []*recordv1.ServicePort) error {
	if n := len(ports); n > maxPorts {
		return reject(ReasonTooLarge, field, "has %d entries, more than %d", n, maxPorts)
	}
	for _, p := range ports {
		if p.GetName() != "" && !isLabel(p.GetName(), maxLabel) {
			return reject(ReasonInvalidName, field, "%q is not a port name", short(p.GetName()))
		}
		if !knownProtocol(p.GetProtocol()) {
			return reject(ReasonInvalidPort, field, "protocol %q is none of TCP, UDP, SCTP", short(p.GetProtocol()))
		}
		if err := checkPort(field, p.GetPort()); err != nil {
			return err
		}
	}
	return nil
}

func knownProtocol(s string) bool { return s == "TCP" || s == "UDP" || s == "SCTP" }

func checkPort(field string, port uint32) error {
	if port < 1 || port > 65535 {
		return reject(ReasonInvalidPort, field, "%d is not within 1..65535", port)
	}
	return nil
}

func checkPortOrNone(field string, port uint32) error {
	if port == 0 {
		return nil
	}
	return checkPort(field, port)
}

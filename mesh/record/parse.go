// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"net/netip"
	"strings"
	"unique"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Bounds of single fields. MaxSize bounds the whole.
const (
	maxCIDRs     = 16
	maxAddresses = 16
	maxExternal  = 1024
	maxLabels    = 256 // a pod's own and its namespace's
	maxLabelKey  = 512 // a label key may have 317 characters, and a prefix of ours before them
	maxText      = 2048
	maxPorts     = 256
	maxBackends  = 1000 // as in an EndpointSlice
	maxPolicy    = 64 << 10
)

const labelCluster = "fairlead.dev/cluster"

// intern makes equal texts share memory: a mesh has many endpoints and few nodes, namespaces and label values.
func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// namespaced is the path of an object with a namespace.
func namespaced(field, namespace, object string) (string, error) {
	if err := checkLabel(field+".namespace", namespace); err != nil {
		return "", err
	}
	if err := checkSubdomain(field+".name", object); err != nil {
		return "", err
	}
	return namespace + "/" + object, nil
}

// parseAddrs reads 1 to maxAddresses addresses.
func parseAddrs(field string, texts []string) ([]netip.Addr, error) {
	return parseAddrsUpTo(maxAddresses, field, texts)
}

func parseAddrsUpTo(most int, field string, texts []string) ([]netip.Addr, error) {
	if n := len(texts); n == 0 || n > most {
		return nil, reject(ReasonInvalidAddress, field, "has %d entries, want 1..%d", n, most)
	}
	out := make([]netip.Addr, len(texts))
	for i, s := range texts {
		a, err := parseAddr(field, s)
		if err != nil {
			return nil, err
		}
		out[i] = a
	}
	return out, nil
}

// parseCIDRs reads at most maxCIDRs prefixes.
func parseCIDRs(field string, texts []string) ([]netip.Prefix, error) {
	if n := len(texts); n > maxCIDRs {
		return nil, reject(ReasonTooLarge, field, "has %d entries, more than %d", n, maxCIDRs)
	}
	var out []netip.Prefix
	for _, s := range texts {
		p, err := parseCIDR(field, s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func parsePorts(field string, ports []*recordv1.ServicePort) ([]Port, error) {
	if n := len(ports); n > maxPorts {
		return nil, reject(ReasonTooLarge, field, "has %d entries, more than %d", n, maxPorts)
	}
	out := make([]Port, len(ports))
	for i, p := range ports {
		if p.GetName() != "" && !isLabel(p.GetName(), maxLabel) {
			return nil, reject(ReasonInvalidName, field, "%q is not a port name", short(p.GetName()))
		}
		proto, known := parseProtocol(p.GetProtocol())
		if !known {
			return nil, reject(ReasonInvalidPort, field, "protocol %q is none of TCP, UDP, SCTP", short(p.GetProtocol()))
		}
		number, err := parsePort(field, p.GetPort())
		if err != nil {
			return nil, err
		}
		if p.GetNodePort() > 65535 {
			return nil, reject(ReasonInvalidPort, field, "node port %d is no port", p.GetNodePort())
		}
		out[i] = Port{Name: intern(p.GetName()), Protocol: proto, Number: number, NodePort: uint16(p.GetNodePort())}
	}
	return out, nil
}

func parseProtocol(s string) (Protocol, bool) {
	switch s {
	case "TCP":
		return TCP, true
	case "UDP":
		return UDP, true
	case "SCTP":
		return SCTP, true
	}
	return 0, false
}

func parsePort(field string, port uint32) (uint16, error) {
	if port < 1 || port > 65535 {
		return 0, reject(ReasonInvalidPort, field, "%d is not within 1..65535", port)
	}
	return uint16(port), nil
}

func checkPortOrNone(field string, port uint32) error {
	if port == 0 {
		return nil
	}
	_, err := parsePort(field, port)
	return err
}

func checkText(field, s string) error {
	if len(s) > maxText {
		return reject(ReasonTooLarge, field, "text of %d bytes, more than %d", len(s), maxText)
	}
	if hasControl(s) {
		return reject(ReasonMalformed, field, "text %q holds control characters", short(s))
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/icmp"
)

// Protocol numbers that policies can name.
const (
	protoTCP  = 6
	protoUDP  = 17
	protoSCTP = 132
)

// parseProtocol reads a protocol as policies write it; absent means TCP.
func parseProtocol(name string) (uint8, error) {
	switch name {
	case "TCP", "":
		return protoTCP, nil
	case "UDP":
		return protoUDP, nil
	case "SCTP":
		return protoSCTP, nil
	}
	return 0, fmt.Errorf("protocol %q is none of TCP, UDP, SCTP", name)
}

func protocolName(proto uint8) string {
	switch proto {
	case protoTCP:
		return "TCP"
	case protoUDP:
		return "UDP"
	case protoSCTP:
		return "SCTP"
	case icmp.V4:
		return "ICMP"
	case icmp.V6:
		return "ICMPv6"
	}
	return fmt.Sprintf("protocol %d", proto)
}

// numericPort makes a port from the numbers a policy gives.
func numericPort(proto uint8, from int64, end *int32) (port, error) {
	to := from
	if end != nil {
		to = int64(*end)
	}
	if from < 1 || from > 65535 {
		return port{}, fmt.Errorf("port %d is not between 1 and 65535", from)
	}
	if to < from || to > 65535 {
		return port{}, fmt.Errorf("endPort %d is not between port %d and 65535", to, from)
	}
	return port{proto: proto, from: uint16(from), to: uint16(to)}, nil
}

func (p port) String() string {
	name := protocolName(p.proto)
	switch {
	case p.name != "":
		return name + "/" + strings.TrimSuffix(p.name, "/"+name)
	case p.from == 0:
		return name
	case icmp.Is(p.proto):
		return name + "/" + icmp.PortName(p.proto, p.from)
	case p.from == p.to:
		return fmt.Sprintf("%s/%d", name, p.from)
	}
	return fmt.Sprintf("%s/%d-%d", name, p.from, p.to)
}

// span returns the ports as a line holds them. Port 0 does not exist, so a range of all others is any port.
func (p port) span() (from, to uint16) {
	if p.from <= 1 && (p.to == 65535 || p.from == 0) {
		return 0, 0
	}
	return p.from, p.to
}

// hasPorts says whether connections of a protocol have ports. ICMP has its types as such.
func hasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP || icmp.Is(proto)
}

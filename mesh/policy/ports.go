// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/bits"
	"strings"
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
	case p.from == p.to:
		return fmt.Sprintf("%s/%d", name, p.from)
	}
	return fmt.Sprintf("%s/%d-%d", name, p.from, p.to)
}

// portPrefix is a block of 2^(16-bits) ports: what one entry of the datapath can hold.
type portPrefix struct {
	proto uint8
	value uint16
	bits  uint8
}

// prefixes splits a range into the fewest blocks. A range of all ports is one block; port 0 does not exist, so whether
// it is in or out makes no difference.
func (p port) prefixes(out []portPrefix) []portPrefix {
	from, to := uint32(p.from), uint32(p.to)
	if from <= 1 && (to == 65535 || p.from == 0) {
		return append(out, portPrefix{proto: p.proto})
	}
	for from <= to {
		size := uint32(1) << min(bits.TrailingZeros32(from), 16)
		for size > to-from+1 {
			size >>= 1
		}
		out = append(out, portPrefix{proto: p.proto, value: uint16(from), bits: uint8(16 - bits.TrailingZeros32(size))})
		from += size
	}
	return out
}

// intersect returns the ports that both blocks cover.
func (p portPrefix) intersect(q portPrefix) (portPrefix, bool) {
	switch {
	case p.proto == 0:
		p.proto = q.proto
	case q.proto != 0 && q.proto != p.proto:
		return portPrefix{}, false
	}
	if q.bits < p.bits {
		p.value, p.bits, q.value, q.bits = q.value, q.bits, p.value, p.bits
	}
	// p is the wider one now.
	if maskPort(q.value, p.bits) != p.value {
		return portPrefix{}, false
	}
	return portPrefix{proto: p.proto, value: q.value, bits: q.bits}, true
}

// maskPort keeps the first bits of a port.
func maskPort(port uint16, bits uint8) uint16 {
	return uint16(uint32(port) >> (16 - bits) << (16 - bits))
}

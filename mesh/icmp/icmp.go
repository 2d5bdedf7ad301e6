// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package icmp knows the types of ICMP and ICMPv6 messages: their names, which are errors, and what policy has in place of a
// port. It is pure.
package icmp

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Protocol numbers.
const (
	V4 = 1
	V6 = 58
)

// Types that are asked for by name most.
const (
	V4EchoRequest = 8
	V6EchoRequest = 128
)

// names of types, as in RFC 792, 950, 1256, 4443, 4861, 4620, 8335 and IANA's registries, but written as one word.
var names = map[uint8]map[uint8]string{
	V4: {
		0: "EchoReply", 3: "DestinationUnreachable", 4: "SourceQuench", 5: "Redirect", V4EchoRequest: "EchoRequest", 9: "RouterAdvertisement",
		10: "RouterSolicitation", 11: "TimeExceeded", 12: "ParameterProblem", 13: "TimestampRequest", 14: "TimestampReply",
		15: "InformationRequest", 16: "InformationReply", 17: "AddressMaskRequest", 18: "AddressMaskReply", 40: "Photuris",
		42: "ExtendedEchoRequest", 43: "ExtendedEchoReply",
	},
	V6: {
		1: "DestinationUnreachable", 2: "PacketTooBig", 3: "TimeExceeded", 4: "ParameterProblem", V6EchoRequest: "EchoRequest",
		129: "EchoReply", 130: "MulticastListenerQuery", 131: "MulticastListenerReport", 132: "MulticastListenerDone",
		133: "RouterSolicitation", 134: "RouterAdvertisement", 135: "NeighborSolicitation", 136: "NeighborAdvertisement",
		137: "Redirect", 138: "RouterRenumbering", 139: "NodeInformationQuery", 140: "NodeInformationReply",
		143: "MulticastListenerReportV2", 160: "ExtendedEchoRequest", 161: "ExtendedEchoReply",
	},
}

// Is says whether a protocol is one of the two.
func Is(proto uint8) bool { return proto == V4 || proto == V6 }

// IsError says whether messages of a type are errors about other packets. These belong to the flow that they quote, and no policy
// is asked about them.
func IsError(proto, typ uint8) bool {
	if proto == V6 {
		return typ < 128
	}
	return typ == 3 || typ == 4 || typ == 11 || typ == 12
}

// Name of a type; its number if it has none.
func Name(proto, typ uint8) string {
	if n, has := names[proto][typ]; has {
		return n
	}
	return strconv.Itoa(int(typ))
}

// Named finds a type by its name.
func Named(proto uint8, name string) (uint8, bool) {
	for typ, n := range names[proto] {
		if n == name {
			return typ, true
		}
	}
	return 0, false
}

// Names of the types that policies can name: all but errors.
func Names(proto uint8) []string {
	var out []string
	for _, typ := range slices.Sorted(maps.Keys(names[proto])) {
		if !IsError(proto, typ) {
			out = append(out, names[proto][typ])
		}
	}
	return out
}

// Port is what a type is where others have a destination port. Port 0 is none.
func Port(typ uint8) uint16 { return uint16(typ) + 1 }

// Type of a port; false if it is none of a type.
func Type(port uint16) (uint8, bool) {
	if port < 1 || port > 256 {
		return 0, false
	}
	return uint8(port - 1), true
}

// PortName is the name of the type that a port is; "any" for a port of none.
func PortName(proto uint8, port uint16) string {
	typ, is := Type(port)
	if !is {
		return "any"
	}
	return Name(proto, typ)
}

// Parse reads a type as people write it: by name or number.
func Parse(proto uint8, text string) (uint8, error) {
	if typ, is := Named(proto, text); is {
		return typ, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%q is neither the name of a type nor a number from 0 to 255", text)
	}
	return uint8(n), nil
}

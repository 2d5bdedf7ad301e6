// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package icmp

import (
	"slices"
	"testing"
)

func TestNamesAndNumbersLeadToEachOther(t *testing.T) {
	for _, proto := range []uint8{V4, V6} {
		seen := map[string]bool{}
		for n := range 256 {
			typ := uint8(n)
			name := Name(proto, typ)
			if seen[name] {
				t.Errorf("protocol %d has two types %s", proto, name)
			}
			seen[name] = true
			if back, err := Parse(proto, name); err != nil || back != typ {
				t.Errorf("protocol %d: %s is read as %d, %v, want %d", proto, name, back, err, typ)
			}
			if back, is := Type(Port(typ)); !is || back != typ || PortName(proto, Port(typ)) != name {
				t.Errorf("type %d comes back from its port as %d, %t", typ, back, is)
			}
			if named, is := Named(proto, name); is && slices.Contains(Names(proto), name) == IsError(proto, named) {
				t.Errorf("whether policies can name %s of protocol %d is wrong", name, proto)
			}
		}
	}
}

func TestWhatIsNoType(t *testing.T) {
	for _, text := range []string{"", "-1", "256", "8.0", "echorequest", "PacketTooBig"} {
		if typ, err := Parse(V4, text); err == nil {
			t.Errorf("%q is read as %d", text, typ)
		}
	}
	for _, port := range []uint16{0, 257, 65535} {
		if typ, is := Type(port); is {
			t.Errorf("port %d is type %d", port, typ)
		}
	}
}

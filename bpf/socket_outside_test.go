// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// What kube-proxy translates is in the same maps, so that policy knows where it leads. The socket leaves it alone.
func (f socketFixture) policyOnlyStory(t *testing.T) {
	f.service(backends4[0], 9, ServicePolicyOnly, backends4[1:])
	c := dial(t, "tcp", backends4[0])
	defer c.Close()
	if got := peername(t, c); got != backends4[0] {
		t.Errorf("getpeername says %s, want %s", got, backends4[0])
	}
}

// A node port is at every address of the cluster's nodes.
func (f socketFixture) nodePortStory(t *testing.T) {
	for _, tt := range []struct {
		zero, node, foreign netip.Addr
		backends            []netip.AddrPort
	}{
		{netip.IPv4Unspecified(), netip.MustParseAddr("192.0.2.50"), netip.MustParseAddr("127.1.0.9"), backends4},
		{netip.IPv6Unspecified(), netip.MustParseAddr("2001:db8::50"), netip.MustParseAddr("::1"), backends6},
	} {
		f.service(netip.AddrPortFrom(tt.zero, nodePort), 30, 0, tt.backends)
		f.address(tt.node, Remote{Flags: RemoteNode})
		f.address(tt.foreign, Remote{Flags: RemoteNode | RemoteRequireTunnel})
		at := netip.AddrPortFrom(tt.node, nodePort)
		c := dial(t, "tcp", at)
		hello(t, c)
		if got := peername(t, c); got != at {
			t.Errorf("getpeername says %s, want %s", got, at)
		}
		c.Close()
		if c, err := net.DialTimeout("tcp", netip.AddrPortFrom(tt.foreign, nodePort).String(), time.Second); err == nil {
			c.Close()
			t.Errorf("the same port of another cluster's node leads to our backends")
		}
	}
}

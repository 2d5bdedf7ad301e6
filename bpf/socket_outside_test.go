// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
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

// 0.0.0.0 is the own host, which may listen at a port that is a node port too.
func (f socketFixture) ownPortStory(t *testing.T) {
	const port = 30090
	for _, tt := range []struct {
		zero     netip.Addr
		backends []netip.AddrPort
	}{
		{netip.IPv4Unspecified(), backends4},
		{netip.IPv6Unspecified(), backends6},
	} {
		at := netip.AddrPortFrom(tt.zero, port)
		f.service(at, 40, 0, tt.backends)
		own, err := net.Listen("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := own.Accept(); err == nil {
				fmt.Fprintln(c, "own")
				c.Close()
			}
		}()
		c := dial(t, "tcp", at)
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "own\n" {
			t.Errorf("connect to %s, where this pod listens: got %q, %v", at, line, err)
		}
		c.Close()
		own.Close()
	}
}

// A node asks a pod from a port that is a node port too. The answer is the node's.
func (f socketFixture) answerStory(t *testing.T) {
	const port = 30091
	f.service(netip.AddrPortFrom(netip.IPv4Unspecified(), port), 41, 0, backends4)
	node := netip.MustParseAddr("192.0.2.51")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addrOf(node)); err != nil {
		t.Fatal(err)
	}
	f.address(node, Remote{Flags: RemoteNode})
	client, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(node, port)))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 1, 0, 9), Port: 53})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := client.WriteTo([]byte("query"), server.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	_ = server.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, from, err := server.ReadFromUDPAddrPort(make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, _, err := client.ReadFromUDPAddrPort(make([]byte, 100)); err != nil {
		t.Errorf("the answer to %s is lost: %v", from, err)
	}
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
)

// capture is a packet socket on a device that keeps all IPv4 packets.
type capture struct {
	fd      int
	packets chan [][]byte
}

func startCapture(t *testing.T, ns *nstest.NS, device string) *capture {
	t.Helper()
	c := &capture{packets: make(chan [][]byte)}
	ns.Do(t, func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all))
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}),
			unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}),
		)
	})
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go c.read(stop)
	return c
}

func (c *capture) read(stop chan struct{}) {
	defer unix.Close(c.fd)
	var got [][]byte
	buf := make([]byte, 1<<16)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if err == nil {
			ll, ok := from.(*unix.SockaddrLinklayer)
			if ok && binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, ll.Protocol)) == unix.ETH_P_IP {
				got = append(got, bytes.Clone(buf[:n]))
			}
			continue
		}
		select {
		case <-stop:
			return
		case c.packets <- got: // quiet for a moment, and somebody asks
			got = nil
		default:
		}
	}
}

// onlyTunnel checks that all packets so far were datagrams of the tunnel and
// that none had the secret in the clear.
func (c *capture) onlyTunnel(t *testing.T, port uint16, secret []byte) {
	t.Helper()
	packets := <-c.packets
	if len(packets) == 0 {
		t.Fatal("the capture saw no packet: it proves nothing")
	}
	for _, p := range packets {
		if !ofTunnel(p, port) && !refusal(p, port) {
			t.Errorf("a packet of the underlay is no datagram of the tunnel: % x", p[:min(len(p), 64)])
		}
		if bytes.Contains(p, secret) {
			t.Errorf("a packet of the underlay has the secret in the clear")
		}
	}
	t.Logf("%d packets captured, all of them UDP %d", len(packets), port)
}

func ofTunnel(p []byte, port uint16) bool {
	header := int(p[0]&0xf) * 4
	return p[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(p[header:]) == port && binary.BigEndian.Uint16(p[header+2:]) == port
}

// refusal is the kernel's answer to a datagram that came while no process
// listened: "port unreachable" around what it refused.
func refusal(p []byte, port uint16) bool {
	header := int(p[0]&0xf) * 4
	return p[9] == unix.IPPROTO_ICMP && p[header] == 3 && p[header+1] == 3 && ofTunnel(p[header+8:], port)
}

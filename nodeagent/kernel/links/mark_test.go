// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

func mark(device string, mac net.HardwareAddr, addrs ...netip.Addr) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	return links.Mark(link, addrs, mac)
}

// silence makes a pod answer nobody, as if its interface were closed.
func silence(t *testing.T, pod *nstest.NS) {
	t.Helper()
	pod.Do(t, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetARPOff(link), netlink.LinkSetDown(link))
	})
}

func TestAClosedPodBehindBridgeIsFoundByItsMark(t *testing.T) {
	node, pod := bridged(t)
	silence(t, pod)
	podMAC, hostMAC := macOf(t, pod, "eth0"), macOf(t, node, "cni0")
	node.Do(t, func() error {
		return errors.Join(
			wantNotFound(pod4),
			mark("veth1", podMAC, pod4, pod6),
			wantLink(pod4, "veth1", podMAC, hostMAC), wantLink(pod6, "veth1", podMAC, hostMAC),
			wantNotFound(netip.MustParseAddr("10.1.0.9")), wantNotFound(netip.MustParseAddr("10.1.0.1")),
		)
	})
}

// The pod that had the address before is still ending.
func TestTheYoungerOfTwoMarksCounts(t *testing.T) {
	node, pod := bridged(t)
	silence(t, pod)
	podMAC, hostMAC := macOf(t, pod, "eth0"), macOf(t, node, "cni0")
	node.Do(t, func() error {
		return errors.Join(mark("veth1", podMAC, pod4), mark("veth2", podMAC, pod4), wantLink(pod4, "veth2", podMAC, hostMAC))
	})
}

func TestAClosedPointToPointPodIsFoundByItsMark(t *testing.T) {
	node, pod := nstest.New(t), nstest.New(t)
	nstest.Veth(t, node, "ptp1", nil, pod, "eth0", []string{"10.1.0.2/32"})
	silence(t, pod)
	podMAC, hostMAC := macOf(t, pod, "eth0"), macOf(t, node, "ptp1")
	node.Do(t, func() error {
		return errors.Join(nstest.Route("10.1.0.2/32", "ptp1", ""), nstest.Route("10.1.0.3/32", "ptp1", ""),
			wantNotFound(pod4), mark("ptp1", podMAC, pod4), wantLink(pod4, "ptp1", podMAC, hostMAC), wantNotFound(other))
	})
}

func TestAMarkLeavesAnotherAliasAlone(t *testing.T) {
	node, pod := bridged(t)
	podMAC := macOf(t, pod, "eth0")
	node.Do(t, func() error {
		link, err := netlink.LinkByName("veth1")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetAlias(link, "of another CNI"); err != nil {
			return err
		}
		for _, addr := range []netip.Addr{pod6, pod4} { // the second takes the first one's place
			if err := mark("veth1", podMAC, addr); err != nil {
				return err
			}
		}
		if link, err = netlink.LinkByName("veth1"); err != nil {
			return err
		}
		if got, want := link.Attrs().Alias, fmt.Sprintf("of another CNI; fairlead-pod %s 10.1.0.2", podMAC); got != want {
			return fmt.Errorf("the alias is %q, want %q", got, want)
		}
		if err := netlink.LinkSetAlias(link, strings.Repeat("x", 230)); err != nil {
			return err
		}
		if err := mark("veth1", podMAC, pod4, pod6); err == nil {
			return errors.New("a mark was set for which there is no room")
		}
		return nil
	})
}

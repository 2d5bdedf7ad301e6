// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

var (
	pod4  = netip.MustParseAddr("10.1.0.2")
	pod6  = netip.MustParseAddr("fd00:1::2")
	other = netip.MustParseAddr("10.1.0.3")
)

// bridged is a node as the reference bridge plugin makes it, with two pods.
func bridged(t *testing.T) (node, pod *nstest.NS) {
	t.Helper()
	node, pod = nstest.New(t), nstest.New(t)
	second := nstest.New(t)
	node.Do(t, func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}); err != nil {
			return err
		}
		return nstest.Up("cni0", "10.1.0.1/24", "fd00:1::1/64")
	})
	nstest.Veth(t, node, "veth1", nil, pod, "eth0", []string{"10.1.0.2/24", "fd00:1::2/64"})
	nstest.Veth(t, node, "veth2", nil, second, "eth0", []string{"10.1.0.3/24", "fd00:1::3/64"})
	node.Do(t, func() error { return errors.Join(enslave("veth1"), enslave("veth2")) })
	return node, pod
}

func enslave(port string) error {
	link, err := netlink.LinkByName(port)
	if err != nil {
		return err
	}
	bridge, err := netlink.LinkByName("cni0")
	if err != nil {
		return err
	}
	return netlink.LinkSetMaster(link, bridge)
}

func macOf(t *testing.T, ns *nstest.NS, name string) (mac net.HardwareAddr) {
	t.Helper()
	ns.Do(t, func() error {
		ifi, err := net.InterfaceByName(name)
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	})
	return mac
}

func wantLink(ip netip.Addr, name string, podMAC, hostMAC net.HardwareAddr) error {
	got, err := links.HostSide(ip)
	if err != nil {
		return err
	}
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	if got.Name != name || got.Index != ifi.Index || !slices.Equal(got.PodMAC, podMAC) || !slices.Equal(got.HostMAC, hostMAC) {
		return fmt.Errorf("%s is found at %+v; want %s (%d), pod %s, host %s", ip, got, name, ifi.Index, podMAC, hostMAC)
	}
	return nil
}

func wantNotFound(ip netip.Addr) error {
	got, err := links.HostSide(ip)
	if !errors.Is(err, links.ErrNotFound) {
		return fmt.Errorf("%s is found at %+v, error %v; want ErrNotFound", ip, got, err)
	}
	return nil
}

// Nobody has spoken yet: neighbour table and forwarding database are empty.
func TestSilentPodBehindBridge(t *testing.T) {
	node, pod := bridged(t)
	podMAC, hostMAC := macOf(t, pod, "eth0"), macOf(t, node, "cni0")
	node.Do(t, func() error {
		return errors.Join(wantLink(pod4, "veth1", podMAC, hostMAC), wantLink(pod6, "veth1", podMAC, hostMAC),
			wantNotFound(netip.MustParseAddr("10.1.0.9")), wantNotFound(netip.MustParseAddr("10.1.0.1")))
	})
}

// A new pod got the address of an ended one, whose MAC address the neighbour
// table still believes in.
func TestAddressReusedBehindBridge(t *testing.T) {
	node, _ := bridged(t)
	next := nstest.New(t)
	node.Do(t, func() error {
		if _, err := links.HostSide(pod4); err != nil {
			return err
		}
		old, err := netlink.LinkByName("veth1")
		if err != nil {
			return err
		}
		return netlink.LinkDel(old)
	})
	nstest.Veth(t, node, "veth3", nil, next, "eth0", []string{"10.1.0.2/24"})
	node.Do(t, func() error { return enslave("veth3") }) // which may change the bridge's own address
	podMAC, hostMAC := macOf(t, next, "eth0"), macOf(t, node, "cni0")
	node.Do(t, func() error { return wantLink(pod4, "veth3", podMAC, hostMAC) })
}

// Some CNIs fix the pod's neighbour entry; the forwarding database forgets a
// silent pod nevertheless.
func TestFixedNeighbourBehindBridge(t *testing.T) {
	node, pod := bridged(t)
	podMAC, hostMAC := macOf(t, pod, "eth0"), macOf(t, node, "cni0")
	node.Do(t, func() error {
		bridge, err := net.InterfaceByName("cni0")
		if err != nil {
			return err
		}
		for _, ip := range []netip.Addr{pod4, pod6} {
			err := netlink.NeighSet(&netlink.Neigh{LinkIndex: bridge.Index, IP: ip.AsSlice(), HardwareAddr: podMAC, State: netlink.NUD_PERMANENT})
			if err != nil {
				return err
			}
		}
		return errors.Join(wantLink(pod4, "veth1", podMAC, hostMAC), wantLink(pod6, "veth1", podMAC, hostMAC))
	})
}

// As Calico, ptp and our own plugin do it: a route per pod.
func TestPointToPoint(t *testing.T) {
	node, pod := nstest.New(t), nstest.New(t)
	nstest.Veth(t, node, "cali1", []string{"169.254.9.1/32", "fe80::1/64"}, pod, "eth0", []string{"10.1.0.2/32", "fd00:1::2/128"})
	pod.Do(t, func() error { return nstest.Route("169.254.9.1/32", "eth0", "") })
	podMAC, hostMAC := macOf(t, pod, "eth0"), macOf(t, node, "cali1")
	node.Do(t, func() error {
		return errors.Join(nstest.Route("10.1.0.2/32", "cali1", ""), nstest.Route("fd00:1::2/128", "cali1", ""),
			wantLink(pod4, "cali1", podMAC, hostMAC), wantLink(pod6, "cali1", podMAC, hostMAC), wantNotFound(other))
	})
}

// Until a pod's route is there, the node's default route or its own network
// covers the address; the uplink must not be taken for the pod's interface.
func TestUplinkIsNoPod(t *testing.T) {
	node, router := nstest.New(t), nstest.New(t)
	nstest.Veth(t, node, "eth0", []string{"10.1.0.1/16"}, router, "r0", []string{"10.1.0.3/16"})
	node.Do(t, func() error {
		return errors.Join(nstest.Route("0.0.0.0/0", "eth0", "10.1.0.3"), wantNotFound(other), wantNotFound(netip.MustParseAddr("203.0.113.5")))
	})
}

func TestUplinksAndLocalAddresses(t *testing.T) {
	node, router := nstest.New(t), nstest.New(t)
	node.Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644) }) // else it has no anycast addresses
	nstest.Veth(t, node, "eth0", []string{"192.0.2.1/24"}, router, "r0", []string{"192.0.2.254/24"})
	nstest.Veth(t, node, "eth1", []string{"198.51.100.1/24", "2001:db8::1/64"}, router, "r1", nil)
	nstest.Veth(t, node, "veth1", []string{"10.1.0.1/24"}, router, "r2", nil)
	node.Do(t, func() error {
		if err := nstest.Route("0.0.0.0/0", "eth0", "192.0.2.254"); err != nil {
			return err
		}
		ups, err := links.Uplinks([]netip.Addr{netip.MustParseAddr("2001:db8::1")}, nil, "fairlead0")
		if err != nil {
			return err
		}
		var names []string
		for _, u := range ups {
			names = append(names, u.Name)
			if u.MTU != 1500 || u.L3 {
				return fmt.Errorf("uplink %+v: want MTU 1500 and a link-layer header", u)
			}
		}
		slices.Sort(names)
		if !slices.Equal(names, []string{"eth0", "eth1"}) {
			return fmt.Errorf("uplinks %v, want eth0 and eth1", names)
		}
		addrs, err := links.LocalAddresses()
		want := "[10.1.0.1 10.1.0.255 192.0.2.1 192.0.2.255 198.51.100.1 198.51.100.255 2001:db8:: 2001:db8::1]"
		if got := fmt.Sprint(addrs); got != want {
			return fmt.Errorf("local addresses %s, want %s", got, want)
		}
		return err
	})
}

// A second network, found by a route in any table, and a wider or a narrower one than the prefix that is guarded.
func TestADeviceThatReachesGuardedPrefixesIsAnUplink(t *testing.T) {
	for _, route := range []string{"10.2.0.0/16", "10.2.7.0/24", "10.0.0.0/8", "10.3.0.0/16"} {
		node, peer := nstest.New(t), nstest.New(t)
		nstest.Veth(t, node, "eth0", []string{"192.0.2.11/24"}, peer, "a", nil)
		nstest.Veth(t, node, "eth1", []string{"198.51.100.11/24"}, peer, "b", nil)
		node.Do(t, func() error {
			link, err := netlink.LinkByName("eth1")
			if err != nil {
				return err
			}
			_, dst, err := net.ParseCIDR(route)
			if err != nil {
				return err
			}
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: net.IPv4(198, 51, 100, 1), Table: 100})
			if err != nil {
				return err
			}
			guarded := []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("fd00:2::/48")}
			got, err := links.Uplinks([]netip.Addr{netip.MustParseAddr("192.0.2.11")}, guarded, "fairlead0")
			is := slices.ContainsFunc(got, func(u links.Uplink) bool { return u.Name == "eth1" })
			if want := route != "10.3.0.0/16"; is != want {
				t.Errorf("with a route to %s eth1 is an uplink: %t, want %t", route, is, want)
			}
			return err
		})
	}
}

// kube-proxy binds the addresses of services to a device of its own; NodeLocal DNSCache listens on a link-local address of the node.
func TestWhatIsTheNodesOwn(t *testing.T) {
	node := nstest.New(t)
	node.Do(t, func() error {
		for name, addrs := range map[string][]string{
			"eth0": {"192.0.2.11/24"}, "kube-ipvs0": {"203.0.113.10/32", "10.96.0.10/32"}, "nodelocaldns": {"169.254.20.10/32"},
		} {
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
				return err
			}
			if err := nstest.Up(name, addrs...); err != nil {
				return err
			}
		}
		got, err := links.LocalAddresses()
		if want := "[169.254.20.10 192.0.2.11 192.0.2.255]"; fmt.Sprint(got) != want {
			t.Errorf("local addresses %v, want %s", got, want)
		}
		return err
	})
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package routes_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/routes"
)

var (
	pods4 = netip.MustParsePrefix("10.2.0.0/24")
	pods6 = netip.MustParsePrefix("fd00:2::/64")
)

func twoLinks(t *testing.T) (node *nstest.NS, under, tunnel int) {
	t.Helper()
	node = nstest.New(t)
	far := nstest.New(t)
	nstest.Veth(t, node, "eth0", []string{"192.0.2.1/24", "2001:db8::1/64"}, far, "far0", nil)
	nstest.Veth(t, node, "tun0", nil, far, "far1", nil)
	node.Do(t, func() error {
		e, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		u, err := net.InterfaceByName("tun0")
		if err != nil {
			return err
		}
		under, tunnel = e.Index, u.Index
		// A CNI's own routes to the very same pods.
		return errors.Join(nstest.Route(pods4.String(), "eth0", "192.0.2.2"), nstest.Route(pods6.String(), "eth0", ""))
	})
	return node, under, tunnel
}

func wantDevice(ip string, device int) error {
	got, err := netlink.RouteGet(net.ParseIP(ip))
	if err != nil {
		return fmt.Errorf("route to %s: %w", ip, err)
	}
	if got[0].LinkIndex != device {
		return fmt.Errorf("%s leaves over device %d, want %d", ip, got[0].LinkIndex, device)
	}
	return nil
}

func wantList(table *routes.Table, want ...routes.Route) error {
	got, err := table.List()
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("our routes are %+v, want %+v", got, want)
	}
	return err
}

func strangers() (string, error) {
	all, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: 254}, netlink.RT_FILTER_TABLE)
	return fmt.Sprint(all), err
}

func TestOursWinAndStrangersStay(t *testing.T) {
	node, under, tunnel := twoLinks(t)
	node.Do(t, func() error {
		before, err := strangers()
		if err != nil {
			return err
		}
		table, err := routes.Open()
		if err != nil {
			return err
		}
		over4 := routes.Route{Prefix: pods4, Link: tunnel, Src: netip.MustParseAddr("192.0.2.1")}
		over6 := routes.Route{Prefix: pods6, Link: tunnel, Src: netip.MustParseAddr("2001:db8::1"), MTU: 1420}
		via4 := routes.Route{Prefix: pods4, Link: under, Via: netip.MustParseAddr("192.0.2.3")}
		via6 := routes.Route{Prefix: pods6, Link: under, Via: netip.MustParseAddr("2001:db8::3")}
		steps := []error{
			table.Replace(over4), table.Replace(over6), table.Replace(over4), table.Replace(over6), // twice is once
			wantList(table, over4, over6), wantDevice("10.2.0.7", tunnel), wantDevice("fd00:2::7", tunnel),
			table.Ensure(),
			table.Replace(via4), table.Replace(via6),
			wantList(table, via4, via6), wantDevice("10.2.0.7", under), wantDevice("fd00:2::7", under),
			table.Replace(routes.Route{Prefix: pods4, Via: via4.Via}), table.Replace(routes.Route{Prefix: pods6, Via: via6.Via}),
			wantList(table, via4, via6), // the kernel finds the device by the next hop
			table.Replace(over4), table.Replace(over6),
			table.Remove(pods4), table.Remove(pods4),
			wantList(table, over6), wantDevice("10.2.0.7", under),
			table.Clear(), wantList(table), wantDevice("fd00:2::7", under),
		}
		for i, err := range steps {
			if err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
		rules, err := netlink.RuleList(netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Table == routes.TableID {
				return fmt.Errorf("the rule %v is left", r)
			}
		}
		after, err := strangers()
		if err == nil && before != after {
			err = fmt.Errorf("the main table was\n%s\nand is\n%s", before, after)
		}
		return err
	})
}

// Somebody else may use the same number for a table: what doesn't bear our
// protocol isn't ours, and so isn't listed or removed.
func TestStrangersInOurTable(t *testing.T) {
	node, _, tunnel := twoLinks(t)
	node.Do(t, func() error {
		stranger := &netlink.Route{LinkIndex: tunnel, Table: routes.TableID, Protocol: 4, Dst: &net.IPNet{IP: net.IP{10, 7, 0, 0}, Mask: net.CIDRMask(16, 32)}}
		if err := netlink.RouteAdd(stranger); err != nil {
			return err
		}
		table, err := routes.Open()
		if err != nil {
			return err
		}
		if err := errors.Join(wantList(table), table.Remove(netip.MustParsePrefix("10.7.0.0/16")), table.Clear()); err != nil {
			return err
		}
		left, err := netlink.RouteListFiltered(netlink.FAMILY_V4, stranger, netlink.RT_FILTER_TABLE)
		if err == nil && len(left) != 1 {
			err = fmt.Errorf("the stranger's route is gone: %v", left)
		}
		return err
	})
}

func TestNonsenseIsRefused(t *testing.T) {
	table := &routes.Table{}
	for name, r := range map[string]routes.Route{
		"host bits":    {Prefix: netip.MustParsePrefix("10.2.0.1/24"), Link: 1},
		"no prefix":    {Link: 1},
		"other family": {Prefix: pods4, Link: 1, Via: netip.MustParseAddr("fd00::1")},
	} {
		if table.Replace(r) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

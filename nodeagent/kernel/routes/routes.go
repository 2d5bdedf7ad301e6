// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package routes is the driver of the routes that Fairlead owns.
//
// They lie in a table of our own (777), bear our protocol (77) and are looked
// up before the main table. A CNI often has a route for the very same pod
// CIDR; in the main table one of the two would have to overwrite the other. In
// a table of our own nothing of a stranger's is ever touched, ours win while
// they exist, and taking them away leaves the node as it was.
package routes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The marks by which ours are known.
const (
	Protocol = 77
	TableID  = 777
	// RulePriority is after the local table (0), so that the node's own
	// addresses stay its own, and before those of the main table (32766).
	RulePriority = 777
)

var families = []int{unix.AF_INET, unix.AF_INET6}

// Route says how packets to Prefix leave the node.
type Route struct {
	Prefix netip.Prefix
	Link   int        // index of the device; 0 where Via tells
	Via    netip.Addr // the next hop; invalid where the device needs none
	Src    netip.Addr // the node's address to speak from; invalid lets the kernel choose
	MTU    int        // 0 is the device's
}

// Table is the open driver.
type Table struct{}

// Open makes sure that our table is looked up.
func Open() (*Table, error) {
	t := &Table{}
	return t, t.Ensure()
}

// Ensure puts back the rules that lead to our table, if they are gone.
func (t *Table) Ensure() error {
	for _, family := range families {
		have, err := ourRules(family)
		if err != nil {
			return err
		}
		if len(have) > 0 {
			continue
		}
		err = netlink.RuleAdd(rule(family))
		if err != nil && !errors.Is(err, unix.EEXIST) && !unsupported(family, err) {
			return fmt.Errorf("adding the %s rule for table %d: %w", familyName(family), TableID, err)
		}
	}
	return nil
}

// Replace adds a route or changes ours to the same prefix.
func (t *Table) Replace(r Route) error {
	if !r.Prefix.IsValid() || r.Prefix != r.Prefix.Masked() {
		return fmt.Errorf("route to %s: not a network prefix", r.Prefix)
	}
	for _, a := range []netip.Addr{r.Via, r.Src} {
		if a.IsValid() && a.Is4() != r.Prefix.Addr().Is4() {
			return fmt.Errorf("route to %s: %s is of the other address family", r.Prefix, a)
		}
	}
	if err := netlink.RouteReplace(toNetlink(r)); err != nil {
		return fmt.Errorf("setting the route to %s over device %d via %s: %w", r.Prefix, r.Link, r.Via, err)
	}
	// IPv6 keeps several routes to one prefix side by side if their next hops
	// differ, and a replace may then only have replaced one of them.
	return t.removeOthers(r)
}

func (t *Table) removeOthers(keep Route) error {
	if keep.Prefix.Addr().Is4() {
		return nil
	}
	all, err := t.list(unix.AF_INET6)
	if err != nil {
		return err
	}
	for _, r := range all {
		same := r.Via == keep.Via && (r.Link == keep.Link || keep.Link == 0)
		if r.Prefix == keep.Prefix && !same {
			if err := netlink.RouteDel(toNetlink(r)); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("removing the former route to %s: %w", r.Prefix, err)
			}
		}
	}
	return nil
}

// Remove takes our route to prefix away; an absent one is no error.
func (t *Table) Remove(prefix netip.Prefix) error {
	all, err := t.list(family(prefix.Addr()))
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Prefix != prefix {
			continue
		}
		if err := netlink.RouteDel(toNetlink(r)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing the route to %s: %w", prefix, err)
		}
	}
	return nil
}

// List returns our routes, ordered by prefix.
func (t *Table) List() ([]Route, error) {
	var out []Route
	for _, f := range families {
		rs, err := t.list(f)
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	slices.SortFunc(out, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return out, nil
}

// Clear removes all that is ours, the rules too.
func (t *Table) Clear() error {
	all, err := t.List()
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := t.Remove(r.Prefix); err != nil {
			return err
		}
	}
	for _, f := range families {
		rules, err := ourRules(f)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if err := netlink.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("removing the %s rule for table %d: %w", familyName(f), TableID, err)
			}
		}
	}
	return nil
}

func (t *Table) list(family int) ([]Route, error) {
	found, err := netlink.RouteListFiltered(family,
		&netlink.Route{Table: TableID, Protocol: Protocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil && !unsupported(family, err) {
		return nil, fmt.Errorf("listing the %s routes of table %d: %w", familyName(family), TableID, err)
	}
	var out []Route
	for _, r := range found {
		if r.Dst == nil {
			continue // a default route can't be ours
		}
		out = append(out, fromNetlink(r))
	}
	return out, nil
}

func ourRules(family int) ([]netlink.Rule, error) {
	all, err := netlink.RuleList(family)
	if err != nil {
		if unsupported(family, err) {
			return nil, nil
		}
		return nil, fmt.Errorf("listing the %s routing rules: %w", familyName(family), err)
	}
	var out []netlink.Rule
	for _, r := range all {
		if r.Table == TableID && r.Protocol == Protocol {
			r.Family = family
			out = append(out, r)
		}
	}
	return out, nil
}

func rule(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family = family
	r.Table = TableID
	r.Priority = RulePriority
	r.Protocol = Protocol
	return r
}

func toNetlink(r Route) *netlink.Route {
	out := &netlink.Route{
		Dst:       &net.IPNet{IP: r.Prefix.Addr().AsSlice(), Mask: net.CIDRMask(r.Prefix.Bits(), r.Prefix.Addr().BitLen())},
		LinkIndex: r.Link,
		Protocol:  Protocol,
		Table:     TableID,
		MTU:       r.MTU,
		Scope:     netlink.SCOPE_LINK,
	}
	if r.Via.IsValid() {
		out.Gw = r.Via.AsSlice()
		out.Scope = netlink.SCOPE_UNIVERSE
	}
	if r.Src.IsValid() {
		out.Src = r.Src.AsSlice()
	}
	if r.Prefix.Addr().Is6() {
		out.Scope = netlink.SCOPE_UNIVERSE // IPv6 routes have no scope
	}
	return out
}

func fromNetlink(r netlink.Route) Route {
	addr, _ := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	out := Route{Prefix: netip.PrefixFrom(addr.Unmap(), ones), Link: r.LinkIndex, MTU: r.MTU}
	if r.Family == unix.AF_INET6 {
		out.Prefix = netip.PrefixFrom(addr, ones)
	}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Via = via.Unmap()
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		out.Src = src.Unmap()
	}
	return out
}

// A kernel without IPv6 has no IPv6 routes of ours.
func unsupported(family int, err error) bool {
	return family == unix.AF_INET6 && (errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT))
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func familyName(family int) string {
	if family == unix.AF_INET6 {
		return "IPv6"
	}
	return "IPv4"
}

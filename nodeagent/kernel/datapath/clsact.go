// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Our filters are known by this handle and by their names. Priority 1 with a handle of our own stands beside a CNI's
// filters instead of replacing one.
const (
	filterHandle   = 0x0fa1
	filterPriority = 1
)

func filterName(s spot) string { return "fairlead-" + s.hook.String() }

func filterParent(s spot) uint32 {
	if s.ingress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

func filterOf(s spot, ifindex uint32) *netlink.BpfFilter {
	f := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: int(ifindex),
			Parent:    filterParent(s),
			Handle:    filterHandle,
			Protocol:  unix.ETH_P_ALL,
			Priority:  filterPriority,
		},
		Name:         filterName(s),
		DirectAction: true,
	}
	if s.program != nil {
		f.Fd = s.program.FD()
	}
	return f
}

// attachFilter replaces our filter in one step, or adds it.
func attachFilter(s spot, ifindex uint32) error {
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: int(ifindex),
			Handle:    netlink.MakeHandle(0xffff, 0),
			Parent:    netlink.HANDLE_CLSACT,
		},
		QdiscType: "clsact",
	}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding a clsact qdisc: %w", err)
	}
	if err := netlink.FilterReplace(filterOf(s, ifindex)); err != nil {
		return fmt.Errorf("setting filter %s: %w", filterName(s), err)
	}
	return nil
}

// detachFilter removes our filter. The qdisc stays: others may use it, and alone it does nothing.
func detachFilter(s spot, ifindex uint32) error {
	err := netlink.FilterDel(filterOf(s, ifindex))
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil // gone with the device or the qdisc
	}
	return fmt.Errorf("removing filter %s: %w", filterName(s), err)
}

// filterProgram returns the program of our filter; 0 if there is none.
func filterProgram(s spot, ifindex uint32) (ebpf.ProgramID, error) {
	l, err := netlink.LinkByIndex(int(ifindex))
	if err != nil {
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) {
			return 0, nil
		}
		return 0, err
	}
	filters, err := netlink.FilterList(l, filterParent(s))
	if err != nil {
		return 0, err
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, filterName(s)) {
			return ebpf.ProgramID(b.Id), nil
		}
	}
	return 0, nil
}

// filtered lists the interfaces that bear one of the spots' filters.
func filtered(spots []spot) ([]uint32, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	found := map[uint32]bool{}
	for _, l := range links {
		for _, s := range spots {
			filters, err := netlink.FilterList(l, filterParent(s))
			if err != nil {
				continue // no clsact there
			}
			for _, f := range filters {
				if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, filterName(s)) {
					found[uint32(l.Attrs().Index)] = true
				}
			}
		}
	}
	return sortedKeys(found), nil
}

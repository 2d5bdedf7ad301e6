// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package firstdrop

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

func (h Hook) filter() string { return "fairlead-" + h.Name }

func (h Hook) parent() uint32 {
	if h.Ingress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

func filterOf(h Hook, p *ebpf.Program, ifindex uint32) *netlink.BpfFilter {
	f := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: int(ifindex),
			Parent:    h.parent(),
			Handle:    filterHandle,
			Protocol:  unix.ETH_P_ALL,
			Priority:  filterPriority,
		},
		Name:         h.filter(),
		DirectAction: true,
	}
	if p != nil {
		f.Fd = p.FD()
	}
	return f
}

// SetFilter replaces our filter in one step, or adds it.
func SetFilter(h Hook, p *ebpf.Program, ifindex uint32) error {
	if err := addQdisc(ifindex); err != nil {
		return err
	}
	if err := netlink.FilterReplace(filterOf(h, p, ifindex)); err != nil {
		return fmt.Errorf("setting filter %s: %w", h.filter(), err)
	}
	return nil
}

// AddFilter adds our filter where there is none.
func AddFilter(h Hook, p *ebpf.Program, ifindex uint32) error {
	if err := addQdisc(ifindex); err != nil {
		return err
	}
	if err := netlink.FilterAdd(filterOf(h, p, ifindex)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding filter %s: %w", h.filter(), err)
	}
	return nil
}

func addQdisc(ifindex uint32) error {
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
	return nil
}

// RemoveFilter removes our filter. The qdisc stays: others may use it, and alone it does nothing.
func RemoveFilter(h Hook, ifindex uint32) error {
	err := netlink.FilterDel(filterOf(h, nil, ifindex))
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL) {
		return nil // gone with the device or the qdisc
	}
	return fmt.Errorf("removing filter %s: %w", h.filter(), err)
}

// FilterProgram returns the number of our filter's program; 0 if there is none.
func FilterProgram(h Hook, ifindex uint32) (uint32, error) {
	l, err := netlink.LinkByIndex(int(ifindex))
	if err != nil {
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) {
			return 0, nil
		}
		return 0, err
	}
	return programOn(h, l)
}

func programOn(h Hook, l netlink.Link) (uint32, error) {
	filters, err := netlink.FilterList(l, h.parent())
	if err != nil {
		return 0, err
	}
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, h.filter()) {
			return uint32(b.Id), nil
		}
	}
	return 0, nil
}

// Filtered lists the interfaces that bear one of the hooks' filters.
func Filtered(hooks ...Hook) (map[uint32]bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	found := map[uint32]bool{}
	for _, l := range links {
		for _, h := range hooks {
			if id, err := programOn(h, l); err == nil && id != 0 { // an error: no clsact there
				found[uint32(l.Attrs().Index)] = true
			}
		}
	}
	return found, nil
}

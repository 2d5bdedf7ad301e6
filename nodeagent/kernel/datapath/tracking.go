// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// ctnetlinkGetStats asks connection tracking how many entries it has (IPCTNL_MSG_CT_GET_STATS in the kernel's
// nfnetlink_conntrack.h).
const ctnetlinkGetStats = 5

// loadTracking has the kernel load connection tracking where that is a module: programs which are loaded before it can't ask
// it, and would know no client behind the node's address until the agent starts anew. Each request to ctnetlink makes the
// kernel load nf_conntrack_netlink, with nf_conntrack; the agent itself needs neither modprobe nor the right to load modules.
func loadTracking() error {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|ctnetlinkGetStats, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	if _, err := req.Execute(unix.NETLINK_NETFILTER, 0); err != nil {
		return fmt.Errorf("ask connection tracking for its figures: %w", err)
	}
	return nil
}

// prepareTracking loads connection tracking, and says what it means if programs can't ask it.
func prepareTracking(log *slog.Logger) error {
	loading := loadTracking()
	has, err := bpf.HasTracking()
	if err != nil {
		return errors.Join(err, loading)
	}
	if !has {
		log.Warn("programs can't ask the kernel's connection tracking (kernel 5.18 or newer, nf_conntrack): clients that come under the node's address, "+
			"as those of node ports, are unknown, and no rule about some peers allows them; load the module and start the agent anew",
			"error", loading)
	}
	return nil
}

// warnOfLateChecksums says what it means if programs can't see where a packet's checksum is to be written.
func warnOfLateChecksums(log *slog.Logger) error {
	has, err := bpf.HasKernelPackets()
	if err != nil {
		return err
	}
	if !has {
		log.Warn("programs can't see where a packet's checksum will be written (kernel 6.2 or newer): a pod with NET_RAW can have addresses and ports " +
			"rewritten after they were judged, on their way to another node; take that capability from pods, or use a newer kernel")
	}
	return nil
}

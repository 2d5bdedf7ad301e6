// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package datapath is the agent's only driver of eBPF: maps as typed targets, programs as hooks on interfaces and cgroups,
// counters and events.
//
// Everything is pinned below one directory and outlives the process:
//
//	<dir>/fl_*                     maps
//	<dir>/programs/<mode>/<hook>   a pod's programs, for the CNI plugin to attach (package firstdrop)
//	<dir>/links/<hook>-<ifindex>   a program on an interface (TCX)
//	<dir>/links/socket-<hook>      a program on the node's cgroup
//
// Opening reuses what is there. Attaching to where an older program sits swaps the program in one step; nothing is ever
// detached because the agent ends. Kernels before 6.6 have no TCX: there the programs are clsact filters, which stay on
// their device without a pin.
package datapath

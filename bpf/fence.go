// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// Fence returns when every program run that had begun before the call has ended, and every run that begins afterwards
// sees what was written before it. Call it after the policy epoch moved and before the rows of the old policy go: a packet
// on its way may still need them.
//
// It waits for an RCU grace period (some milliseconds, more on a busy machine), because the kernel does so before an
// update of a map of maps returns: maybe_wait_bpf_programs in kernel/bpf/syscall.c, which calls synchronize_rcu, in every
// kernel since 4.15.
func (m *Maps) Fence() error {
	inner, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "fl_fence_inner", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1,
	})
	if err != nil {
		return fmt.Errorf("create inner map of %s: %w", MapFence, err)
	}
	defer inner.Close()
	if err := m.FenceMap.Put(uint32(0), inner); err != nil {
		return fmt.Errorf("update %s: %w", MapFence, err)
	}
	return nil
}

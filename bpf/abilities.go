// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// trackingModule is where connection tracking lives if it isn't part of the kernel itself.
const trackingModule = "nf_conntrack"

// HasTracking says whether programs can ask the kernel's connection tracking (kfuncs of 5.18): it is built in, or its
// module is loaded. Programs that were loaded before the module don't ask.
func HasTracking() (bool, error) {
	for _, load := range []func() (*btf.Spec, error){
		btf.LoadKernelSpec,
		func() (*btf.Spec, error) { return btf.LoadKernelModuleSpec(trackingModule) },
	} {
		spec, err := load()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ebpf.ErrNotSupported) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("read the kernel's types: %w", err)
		}
		var lookup, release *btf.Func
		if spec.TypeByName("bpf_skb_ct_lookup", &lookup) == nil && spec.TypeByName("bpf_ct_release", &release) == nil {
			return true, nil
		}
	}
	return false, nil
}

// HasKernelPackets says whether programs see packets as the kernel has them (bpf_cast_to_kern_ctx, 6.2).
func HasKernelPackets() (bool, error) {
	spec, err := btf.LoadKernelSpec()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the kernel's types: %w", err)
	}
	var cast *btf.Func
	return spec.TypeByName("bpf_cast_to_kern_ctx", &cast) == nil, nil
}

// abilities are the kernel's that programs use where they are, by the constant that says so.
type abilities map[string]bool

func kernelAbilities() (abilities, error) {
	tracking, err := HasTracking()
	if err != nil {
		return nil, err
	}
	packets, err := HasKernelPackets()
	return abilities{"fl_tracking": tracking, "fl_kernel_packets": packets}, err
}

// enable has an object's programs use them.
func (a abilities) enable(spec *ebpf.CollectionSpec) error {
	for name, has := range a {
		v := spec.Variables[name]
		if v == nil || !has {
			continue
		}
		if err := v.Set(true); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

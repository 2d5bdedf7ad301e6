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

// enableTracking has an object's programs ask, if it has any that would.
func enableTracking(spec *ebpf.CollectionSpec, has bool) error {
	v := spec.Variables["fl_tracking"]
	if v == nil || !has {
		return nil
	}
	if err := v.Set(true); err != nil {
		return fmt.Errorf("set fl_tracking: %w", err)
	}
	return nil
}

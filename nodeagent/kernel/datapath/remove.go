// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
)

// Remove takes everything that is pinned in dir off the node, for an uninstallation. Programs first: none may run with
// half of its maps. Those that the CNI plugin attaches go before the attached ones, so that it attaches no more.
func Remove(dir string) error {
	errs := []error{firstdrop.RemovePrograms(dir), removeFilters()}
	for _, path := range []string{dir + "/links", dir} {
		if err := os.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("removing pins: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeFilters takes our clsact filters off all devices, whichever mode was in use.
func removeFilters() error {
	var errs []error
	for _, s := range []spot{
		{hook: bpf.HookPodIngress}, {hook: bpf.HookPodEgress, ingress: true},
		{hook: bpf.HookTunnelIngress, ingress: true}, {hook: bpf.HookUplinkEgress},
	} {
		interfaces, err := filtered([]spot{s})
		errs = append(errs, err)
		for ifindex := range interfaces {
			errs = append(errs, firstdrop.RemoveFilter(s.at(), ifindex))
		}
	}
	return errors.Join(errs...)
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"context"
	"slices"

	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Hooks attaches and detaches programs, as a target of rows.
func (d *Datapath) Hooks() Target[table.Hook, table.Attachment] { return hooks{d} }

type hooks struct{ d *Datapath }

func (h hooks) Update(_ context.Context, keys []table.Hook, _ []table.Attachment) []error {
	// What guards the node's edge comes before what sends there.
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(rank(keys[a].Role), rank(keys[b].Role)), cmp.Compare(keys[a].Ifindex, keys[b].Ifindex))
	})
	var errs []error
	for _, i := range order {
		if err := h.d.Attach(keys[i].Role, keys[i].Ifindex); err != nil {
			if errs == nil {
				errs = make([]error, len(keys))
			}
			errs[i] = err
		}
	}
	return errs
}

func rank(r table.Role) int {
	return slices.Index([]table.Role{table.RoleUplink, table.RoleTunnel, table.RolePod}, r)
}

func (h hooks) Delete(_ context.Context, keys []table.Hook) []error {
	var errs []error
	for i, hook := range keys {
		if err := h.d.Detach(hook.Role, hook.Ifindex); err != nil {
			if errs == nil {
				errs = make([]error, len(keys))
			}
			errs[i] = err
		}
	}
	return errs
}

func (h hooks) Have(_ context.Context, visit func([]table.Hook, []table.Attachment)) error {
	for _, role := range []table.Role{table.RolePod, table.RoleTunnel, table.RoleUplink} {
		interfaces, err := h.d.Attached(role)
		if err != nil {
			return err
		}
		for _, ifindex := range interfaces {
			visit([]table.Hook{{Role: role, Ifindex: ifindex}}, []table.Attachment{{}})
		}
	}
	return nil
}

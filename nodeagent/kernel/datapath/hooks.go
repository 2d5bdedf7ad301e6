// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"

	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Hooks attaches and detaches programs, as a target of rows.
func (d *Datapath) Hooks() Target[table.Hook, table.Attachment] { return hooks{d} }

type hooks struct{ d *Datapath }

func (h hooks) Update(_ context.Context, keys []table.Hook, _ []table.Attachment) []error {
	return each(keys, func(hook table.Hook) error { return h.d.Attach(hook.Role, hook.Ifindex) })
}

func (h hooks) Delete(_ context.Context, keys []table.Hook) []error {
	return each(keys, func(hook table.Hook) error { return h.d.Detach(hook.Role, hook.Ifindex) })
}

func each(keys []table.Hook, do func(table.Hook) error) (errs []error) {
	for i, hook := range keys {
		if err := do(hook); err != nil {
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

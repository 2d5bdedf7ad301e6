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

func (h hooks) Update(_ context.Context, hook table.Hook, _ table.Attachment) error {
	return h.d.Attach(hook.Role, hook.Ifindex)
}

func (h hooks) Delete(_ context.Context, hook table.Hook) error {
	return h.d.Detach(hook.Role, hook.Ifindex)
}

func (h hooks) Have(context.Context) (map[table.Hook]table.Attachment, error) {
	out := map[table.Hook]table.Attachment{}
	for _, role := range []table.Role{table.RolePod, table.RoleTunnel, table.RoleUplink} {
		interfaces, err := h.d.Attached(role)
		if err != nil {
			return nil, err
		}
		for _, ifindex := range interfaces {
			out[table.Hook{Role: role, Ifindex: ifindex}] = table.Attachment{}
		}
	}
	return out, nil
}

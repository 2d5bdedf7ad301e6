// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// upgradeLimit is how long programs of the former version may stay. A node on which something that the new maps need never
// comes (WireGuard, say) must not run on maps that nobody fills any more; the new programs close what is missing.
const upgradeLimit = time.Minute

var errNotFilled = fmt.Errorf("%w: the former version's programs stay until the new maps are filled", apply.ErrNotYet)

// upgrade keeps programs of the former version on their interfaces until the maps are filled that the new ones read: else
// everything would be dropped meanwhile. An interface without programs gets them at once.
type upgrade struct {
	apply.Target[table.Hook, table.Attachment]
	outdated func(table.Hook) bool
	filled   func() bool
}

func (u upgrade) Update(ctx context.Context, keys []table.Hook, values []table.Attachment) []error {
	held := make([]bool, len(keys))
	var now []table.Hook
	var with []table.Attachment
	filled := u.filled()
	for i, h := range keys {
		if held[i] = !filled && u.outdated(h); !held[i] {
			now, with = append(now, h), append(with, values[i])
		}
	}
	var taken []error
	if len(now) > 0 {
		taken = u.Target.Update(ctx, now, with)
	}
	if taken == nil && len(now) == len(keys) {
		return nil
	}
	out := make([]error, len(keys))
	next := 0
	for i := range keys {
		if held[i] {
			out[i] = errNotFilled
			continue
		}
		if taken != nil {
			out[i] = taken[next]
		}
		next++
	}
	return out
}

// filled says that the maps hold what is wanted, as far as they take it: what was refused is closed, and holds up nothing.
func (a *Agent) filled() bool {
	if a.planner == nil {
		return false
	}
	if time.Since(a.planning) > upgradeLimit {
		return true
	}
	if !a.policyInForce() || !a.finder.Looked() || !a.tunnelSynced() || !a.settings.Written() {
		return false
	}
	t := a.Tables
	for _, d := range []counted{t.Blocks, t.Guards, t.Ranges, t.Addresses, t.PeerFlags, t.Ifaces, t.Locals, t.Slots, t.Frontends} {
		if d.Count()[table.Pending] > 0 {
			return false
		}
	}
	return true
}

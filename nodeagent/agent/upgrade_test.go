// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// programs are those on interfaces.
type programs struct {
	apply.Target[table.Hook, table.Attachment]
	attached []uint32
	broken   uint32 // takes none
}

var errBroken = errors.New("broken")

func (p *programs) Update(_ context.Context, keys []table.Hook, _ []table.Attachment) []error {
	return apply.Each(len(keys), func(i int) error {
		if keys[i].Ifindex == p.broken {
			return errBroken
		}
		p.attached = append(p.attached, keys[i].Ifindex)
		return nil
	})
}

// Interfaces with programs of the former version wait for the maps, others do not; and each row has its own outcome.
func TestProgramsAreSwappedWhenTheMapsAreFilled(t *testing.T) {
	p, filled := &programs{broken: 4}, false
	former := map[uint32]bool{1: true, 3: true}
	u := upgrade{Target: p, outdated: func(h table.Hook) bool { return former[h.Ifindex] }, filled: func() bool { return filled }}
	hooks := func(indexes ...uint32) (keys []table.Hook, values []table.Attachment) {
		for _, i := range indexes {
			keys, values = append(keys, table.Hook{Role: table.RolePod, Ifindex: i}), append(values, table.Attachment{})
		}
		return keys, values
	}
	keys, values := hooks(1, 2, 3, 4, 5)
	errs := u.Update(t.Context(), keys, values)
	if want := []error{errNotFilled, nil, errNotFilled, errBroken, nil}; !slices.Equal(errs, want) || !slices.Equal(p.attached, []uint32{2, 5}) {
		t.Errorf("attached %v, errors %v, want %v", p.attached, errs, want)
	}
	keys, values = hooks(2, 5)
	if errs := u.Update(t.Context(), keys, values); errs != nil {
		t.Errorf("new interfaces: %v", errs)
	}
	filled = true
	keys, values = hooks(1, 3)
	if errs := u.Update(t.Context(), keys, values); errs != nil || !slices.Contains(p.attached, 1) || !slices.Contains(p.attached, 3) {
		t.Errorf("once they are filled: attached %v, %v", p.attached, errs)
	}
}

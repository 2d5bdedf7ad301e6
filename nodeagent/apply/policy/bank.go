// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
)

// bank is what one of the two halves of fl_subjects holds. Its keys have bank 0.
type bank map[bpf.SubjectKey]bpf.Subject

// align brings the bank to want, which nobody reads meanwhile. A row that is refused is absent afterwards, which is
// closed; reasons says why. An error means that the bank must not be put in force.
func (b bank) align(ctx context.Context, to apply.Target[bpf.SubjectKey, bpf.Subject], number uint8, want bank,
	reasons map[bpf.SubjectKey]error,
) error {
	// Rows that go make room for those that come.
	var gone []bpf.SubjectKey
	for key := range b {
		if _, keep := want[key]; !keep {
			gone = append(gone, key)
		}
	}
	if err := b.remove(ctx, to, number, gone); err != nil {
		return err
	}
	var keys, put []bpf.SubjectKey
	var values []bpf.Subject
	for key, row := range want {
		if have, ok := b[key]; !ok || have != row {
			keys, values = append(keys, key), append(values, row)
			key.Bank = number
			put = append(put, key)
		}
	}
	var refused []bpf.SubjectKey
	errs := to.Update(ctx, put, values)
	for i, key := range keys {
		if errs == nil || errs[i] == nil {
			b[key] = values[i]
			continue
		}
		refused = append(refused, key)
		reasons[key] = fmt.Errorf("closed: %w", errs[i])
	}
	return b.remove(ctx, to, number, refused)
}

func (b bank) remove(ctx context.Context, from apply.Target[bpf.SubjectKey, bpf.Subject], number uint8, keys []bpf.SubjectKey) error {
	if len(keys) == 0 {
		return nil
	}
	at := make([]bpf.SubjectKey, len(keys))
	for i, key := range keys {
		key.Bank = number
		at[i] = key
	}
	errs := from.Delete(ctx, at)
	for i, key := range keys {
		if errs != nil && errs[i] != nil {
			return fmt.Errorf("removing %s of bank %d: %w", key.Dir, number, errs[i])
		}
		delete(b, key)
	}
	return nil
}

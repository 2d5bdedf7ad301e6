// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy writes the compiled policies: entries, then subjects. What is added goes in before a subject may look
// it up, what is gone leaves after no subject looks for it.
package policy

import (
	"context"
	"fmt"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Doors of the policy maps.
type Doors struct {
	Entries  apply.Target[bpf.PolicyKey, bpf.PolicyEntry]
	Subjects apply.Target[bpf.SubjectKey, bpf.Subject]
}

// Steps in the order in which additions are written.
func Steps(t *table.Tables, d Doors) ([]apply.Step, error) {
	entries, err := apply.Follow(t.Entries, d.Entries)
	if err != nil {
		return nil, err
	}
	subjects, err := apply.Follow(t.Subjects, whole{d.Subjects, entries})
	if err != nil {
		return nil, err
	}
	return []apply.Step{entries, subjects}, nil
}

// whole refuses a subject some of whose entries the kernel has refused: it stays with the policy it had.
type whole struct {
	apply.Target[bpf.SubjectKey, bpf.Subject]
	entries *apply.Follower[bpf.PolicyKey, bpf.PolicyEntry]
}

func (w whole) Update(ctx context.Context, key bpf.SubjectKey, s bpf.Subject) error {
	for entry := range w.entries.Waiting() {
		if entry.Subject == key.Identity && entry.Dir == key.Dir {
			return fmt.Errorf("entry %s of it is not written", table.Format(entry))
		}
	}
	return w.Target.Update(ctx, key, s)
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy writes the compiled policies: entries, then subjects. What is added goes in before a subject may look
// it up, what is gone leaves after no subject looks for it.
package policy

import (
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
func Steps(t *table.Tables, d Doors) []apply.Step {
	return []apply.Step{apply.Follow(t.Entries, d.Entries), apply.Follow(t.Subjects, d.Subjects)}
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package flows gathers what the agents of all nodes saw into one story: verdicts in the order of time, chosen by filters.
//
// exec (a node's agent → lines) → Flow → Filter → Merger → render
package flows

import "github.com/fairlead-mesh/fairlead/mesh/flow"

// Flow is what an agent told, and which of the clusters that were asked it belongs to. Fields that a newer agent adds
// are ignored.
type Flow struct {
	Context string `json:"context,omitempty"`
	flow.Flow
}

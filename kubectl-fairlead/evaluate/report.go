// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import "slices"

// State of a check. A warning is worth reading and makes nothing unhealthy.
type State string

// States, from good to bad.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failing State = "failing"
)

// Section groups checks; sections are in the order in which one depends on the other, so the first failing one is
// where to begin.
type Section string

// Sections in their order.
const (
	SectionAccess     Section = "access"
	SectionComponents Section = "components"
	SectionStore      Section = "store"
	SectionClusters   Section = "clusters"
	SectionNodes      Section = "nodes"
	SectionSync       Section = "sync"
	SectionTunnels    Section = "tunnels"
	SectionServices   Section = "services"
	SectionPolicy     Section = "policy"
)

// DocsURL is where the checks are explained; a check's id is the anchor.
const DocsURL = "https://github.com/fairlead-mesh/fairlead/blob/main/docs/reference/checks.md"

// Check is one thing that was looked at.
type Check struct {
	ID      string  `json:"id"`
	Section Section `json:"section"`
	State   State   `json:"state"`
	// Summary is a line that counts, whatever the state.
	Summary string `json:"summary"`
	// Details name what is broken, one object a line.
	Details []string `json:"details,omitempty"`
	// Hint says what to do next.
	Hint    string `json:"hint,omitempty"`
	HintURL string `json:"hintURL,omitempty"`
}

// ClusterReport is the judgement about one cluster.
type ClusterReport struct {
	Context string `json:"context"`
	// Cluster and Mesh are empty as long as the cluster is no member.
	Cluster string  `json:"cluster,omitempty"`
	Mesh    string  `json:"mesh,omitempty"`
	State   State   `json:"state"`
	Checks  []Check `json:"checks"`
	// Unreachable: the cluster could not be judged at all.
	Unreachable bool `json:"unreachable,omitempty"`
}

// Report is the judgement about all clusters that were asked.
type Report struct {
	State    State           `json:"state"`
	Clusters []ClusterReport `json:"clusters"`
}

// Exit codes of the status command.
const (
	ExitHealthy   = 0
	ExitUnhealthy = 1
	ExitUnusable  = 2
)

// ExitCode of a report: unreachable clusters outweigh unhealthy ones, because nothing is known about them.
func (r Report) ExitCode() int {
	code := ExitHealthy
	for _, c := range r.Clusters {
		switch {
		case c.Unreachable:
			return ExitUnusable
		case c.State == Failing:
			code = ExitUnhealthy
		}
	}
	return code
}

// FirstFailing is where to begin, or nil.
func (r Report) FirstFailing() (ClusterReport, *Check) {
	for _, c := range r.Clusters {
		if i := slices.IndexFunc(c.Checks, func(k Check) bool { return k.State == Failing }); i >= 0 {
			return c, &c.Checks[i]
		}
	}
	return ClusterReport{}, nil
}

func worst(checks []Check) State {
	state := OK
	for _, c := range checks {
		if c.State == Failing {
			return Failing
		}
		if c.State == Warning {
			state = Warning
		}
	}
	return state
}

// finding collects what a check says while it looks; the zero value is a check that found nothing wrong.
type finding struct {
	state   State
	details []string
	hint    string
}

func (f *finding) fail(hint string, details ...string) {
	if f.state != Failing {
		f.hint = hint
	}
	f.state = Failing
	f.details = append(f.details, details...)
}

func (f *finding) warn(hint string, details ...string) {
	if f.state == "" {
		f.state = Warning
	}
	if f.hint == "" {
		f.hint = hint
	}
	f.details = append(f.details, details...)
}

func (f *finding) check(id string, section Section, summary string) Check {
	c := Check{ID: id, Section: section, State: f.state, Summary: summary, Details: f.details, Hint: f.hint}
	if c.State == "" {
		c.State = OK
	}
	if c.State != OK {
		c.HintURL = DocsURL + "#" + id
	}
	return c
}

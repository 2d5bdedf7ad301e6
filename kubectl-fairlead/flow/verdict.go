// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package flow gathers what the agents of all nodes saw into one story: verdicts in the order of time, chosen by filters.
//
// exec (a node's agent → lines) → Verdict → Filter → Merger → render
package flow

import "time"

// Verdict is what an agent tells of a packet, one JSON object a line. Fields that a newer agent adds are ignored.
type Verdict struct {
	Time      time.Time `json:"time"`
	Context   string    `json:"context,omitempty"` // added here: the cluster that was asked
	Node      string    `json:"node,omitempty"`
	Hook      string    `json:"hook,omitempty"`
	Direction string    `json:"direction,omitempty"`
	Verdict   string    `json:"verdict"`
	Reason    string    `json:"reason,omitempty"`
	Protocol  string    `json:"protocol,omitempty"`
	Source    Party     `json:"source"`
	Dest      Party     `json:"destination"`
	Policy    *Policy   `json:"policy,omitempty"`
	// Packets this verdict stands for: the one told and those before it that were not.
	Packets uint32 `json:"packets,omitempty"`
}

// Party is one end of a flow.
type Party struct {
	Address   string            `json:"address,omitempty"`
	Port      uint16            `json:"port,omitempty"`
	Identity  uint32            `json:"identity"`
	Cluster   string            `json:"cluster,omitempty"`
	Namespace string            `json:"namespace,omitempty"`
	Pod       string            `json:"pod,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Policy is what decided, and where it comes from.
type Policy struct {
	Kind      string `json:"kind,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Revision  string `json:"revision,omitempty"`
	Path      string `json:"path,omitempty"`
	URL       string `json:"url,omitempty"`
}

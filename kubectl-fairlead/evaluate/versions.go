// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import "slices"

// Versions of everything that runs.
type Versions struct {
	Client   string            `json:"client"`
	Clusters []ClusterVersions `json:"clusters,omitempty"`
}

// ClusterVersions are what one cluster said.
type ClusterVersions struct {
	Context  string `json:"context"`
	Error    string `json:"error,omitempty"`
	Operator string `json:"operator,omitempty"`
	// OperatorImage is what the Deployment asks for, which is not yet what runs.
	OperatorImage string `json:"operatorImage,omitempty"`
	// Agents counts nodes by the version their agent reported.
	Agents []AgentVersion `json:"agents,omitempty"`
}

// AgentVersion is a version and how many nodes run it.
type AgentVersion struct {
	Version string `json:"version"`
	Nodes   int    `json:"nodes"`
}

// VersionsOf picks the versions out of snapshots.
func VersionsOf(snapshots []Snapshot) []ClusterVersions {
	var out []ClusterVersions
	for _, s := range snapshots {
		v := ClusterVersions{Context: s.Context, Error: s.Unreachable, OperatorImage: s.Operator.Image}
		if s.NotInstalled {
			v.Error = "Fairlead is not installed"
		}
		if s.Mesh != nil {
			v.Operator = s.Mesh.Status.OperatorVersion
		}
		v.Agents = agentVersions(s)
		out = append(out, v)
	}
	return out
}

func agentVersions(s Snapshot) []AgentVersion {
	var out []AgentVersion
	for _, n := range s.Nodes {
		i := slices.IndexFunc(out, func(a AgentVersion) bool { return a.Version == n.Status.AgentVersion })
		if i < 0 {
			out = append(out, AgentVersion{Version: n.Status.AgentVersion})
			i = len(out) - 1
		}
		out[i].Nodes++
	}
	return out
}

// Unreachable tells whether a cluster gave no answer.
func (v Versions) Unreachable() bool {
	return slices.ContainsFunc(v.Clusters, func(c ClusterVersions) bool { return c.Error != "" })
}

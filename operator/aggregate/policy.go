// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// maxFailing is how many nodes a status names, which is the API's limit.
const maxFailing = 10

// Version is what a node reports of a policy: the revision of the repository it came from, empty if it was applied by hand,
// and which state of the object it is (record.Policy's Content).
type Version struct{ Revision, Content string }

// is says whether a version that a node reports is the wanted one. An agent that doesn't say what it enforces (it is older
// than this field) may enforce anything.
func (v Version) is(want Version) bool { return v == want && v.Content != "" }

// versionOf is what a node reports.
func versionOf(p *v1alpha1.NodePolicy) Version { return Version{p.Revision, p.Content} }

// Wanted is what agents are given of a policy, and the object that it was made from.
type Wanted struct {
	Version
	UID        string
	Generation int64
	Mode       record.Mode // that others than its spec give it
}

// policy counts nodes by what they report of a policy.
type policy struct {
	exported bool
	want     Wanted
	at       map[Version]int   // nodes without an error
	failing  map[string]string // node → error
	warnings map[string]int    // warning → nodes without an error
	sources  map[SourceName]*source
}

// Policy is how far a policy got.
type Policy struct {
	Exported bool // agents are given the policy, as Want
	Want     Wanted
	Nodes    v1alpha1.PolicyNodes
	Why      string // the error of the first failing node; empty: none fails
	Warning  string // the first warning of the nodes without an error; empty: none warns
}

// SetPolicy says which version of a policy agents are given, by its record's key.
func (x *Index) SetPolicy(key string, want Wanted) {
	p := x.policy(key)
	if p.exported && p.want == want {
		return
	}
	x.setWanted(key, p, true, want)
	x.dirtyPolicies[key] = struct{}{}
}

// setWanted changes what is wanted of a policy, for the sources that it belongs to as well.
func (x *Index) setWanted(key string, p *policy, exported bool, want Wanted) {
	for name, s := range p.sources {
		x.dirtySources[name] = struct{}{}
		s.unwant(key, p)
	}
	p.exported, p.want = exported, want
	for _, s := range p.sources {
		s.wantAlso(key, p)
	}
}

// RemovePolicy says that agents aren't given a policy any more. It isn't dirty then: where there is no policy, there is no
// status to write.
func (x *Index) RemovePolicy(key string) {
	p := x.policy(key)
	x.setWanted(key, p, false, Wanted{})
	delete(x.dirtyPolicies, key)
	x.forgetPolicy(key)
}

// Policy sums up a policy, by its record's key.
func (x *Index) Policy(key string) Policy {
	p := x.policies[key]
	if p == nil || !p.exported {
		return Policy{Nodes: v1alpha1.PolicyNodes{Total: int32(x.existing)}}
	}
	out := Policy{Exported: true, Want: p.want, Nodes: v1alpha1.PolicyNodes{Total: int32(x.existing)}}
	for v, n := range p.at {
		if v.is(p.want.Version) {
			out.Nodes.Realized += int32(n)
		}
	}
	if len(p.warnings) > 0 {
		out.Warning = slices.Min(slices.Collect(maps.Keys(p.warnings)))
	}
	if len(p.failing) > 0 {
		out.Nodes.Failing = firstNames(maps.Keys(p.failing))
		first := out.Nodes.Failing[0]
		out.Why = first + ": " + key + ": " + p.failing[first]
	}
	return out
}

func firstNames(names func(func(string) bool)) []string {
	sorted := slices.Sorted(names)
	return sorted[:min(len(sorted), maxFailing)]
}

func (x *Index) policy(key string) *policy {
	p := x.policies[key]
	if p == nil {
		p = &policy{}
		x.policies[key] = p
	}
	return p
}

// forgetPolicy drops a policy that nobody exports, reports or names any more.
func (x *Index) forgetPolicy(key string) {
	if p := x.policies[key]; !p.exported && len(p.sources) == 0 && !p.isReported() {
		delete(x.policies, key)
	}
}

func (p *policy) isReported() bool { return len(p.at) > 0 || len(p.failing) > 0 }

func (p *policy) add(node string, is *v1alpha1.NodePolicy) {
	switch {
	case is == nil:
	case is.Error != "":
		if p.failing == nil {
			p.failing = map[string]string{}
		}
		p.failing[node] = is.Error
	default:
		if p.at == nil {
			p.at = map[Version]int{}
		}
		p.at[versionOf(is)]++
		if is.Warning != "" {
			if p.warnings == nil {
				p.warnings = map[string]int{}
			}
			p.warnings[is.Warning]++
		}
	}
}

func (p *policy) remove(node string, was *v1alpha1.NodePolicy) {
	switch {
	case was == nil:
	case was.Error != "":
		delete(p.failing, node)
	default:
		decrement(p.at, versionOf(was))
		if was.Warning != "" {
			decrement(p.warnings, was.Warning)
		}
	}
}

// decrement keeps a counter only while it counts something.
func decrement[K comparable](counters map[K]int, k K) {
	if counters[k]--; counters[k] == 0 {
		delete(counters, k)
	}
}

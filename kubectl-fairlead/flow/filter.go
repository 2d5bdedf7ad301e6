// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"slices"
	"strings"
	"time"
)

// Filter chooses verdicts; an empty field chooses all. A verdict is chosen if every field chooses it, and a field chooses
// it if any of its values does.
type Filter struct {
	Verdicts   []string
	Namespaces []string
	Pods       []string // name, or namespace/name; a Deployment's name finds its pods
	Since      time.Time
}

// Chooses says whether v passes.
func (f Filter) Chooses(v Verdict) bool {
	return (f.Since.IsZero() || !v.Time.Before(f.Since)) &&
		anyOf(f.Verdicts, func(want string) bool { return strings.EqualFold(want, v.Verdict) }) &&
		anyOf(f.Namespaces, func(want string) bool { return v.Source.Namespace == want || v.Dest.Namespace == want }) &&
		anyOf(f.Pods, func(want string) bool { return v.Source.is(want) || v.Dest.is(want) })
}

func anyOf(wanted []string, matches func(string) bool) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, matches)
}

func (p Party) is(want string) bool {
	namespace, pod, found := strings.Cut(want, "/")
	if !found {
		namespace, pod = p.Namespace, want
	}
	return p.Namespace == namespace && (p.Pod == pod || strings.HasPrefix(p.Pod, pod+"-"))
}

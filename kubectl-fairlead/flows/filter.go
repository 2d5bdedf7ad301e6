// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/flow"
)

// Filter chooses verdicts; an empty field chooses all. A verdict is chosen if every field chooses it, and a field chooses
// it if any of its values does.
type Filter struct {
	Verdicts   []string // in any case
	Namespaces []string
	Pods       []string // name, or namespace/name; a Deployment's name finds its pods
	Since      time.Time
}

// Chooses says whether v passes.
func (f Filter) Chooses(v Flow) bool {
	return (f.Since.IsZero() || !v.Time.Before(f.Since)) &&
		anyOf(f.Verdicts, func(want string) bool { return strings.EqualFold(want, string(v.Verdict)) }) &&
		anyOf(f.Namespaces, func(want string) bool { return v.Source.Namespace == want || v.Destination.Namespace == want }) &&
		anyOf(f.Pods, func(want string) bool { return isPod(v.Source, want) || isPod(v.Destination, want) })
}

func anyOf(wanted []string, matches func(string) bool) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, matches)
}

func isPod(p flow.Peer, want string) bool {
	namespace, pod, found := strings.Cut(want, "/")
	if !found {
		namespace, pod = p.Namespace, want
	}
	return p.Namespace == namespace && (p.Pod == pod || strings.HasPrefix(p.Pod, pod+"-"))
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

func sortedKeys(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// Step is one chapter.
type Step struct {
	Name string
	Do   func(*World, context.Context) error
}

// Setup brings the world up. The policy repository is emptied before anybody calls, so that what an earlier, broken-off
// story left there denies nobody.
var Setup = []Step{
	{"build", (*World).Build},
	{"clusters", (*World).Clusters},
	{"install", (*World).Install},
	{"policy-repository", (*World).PolicyRepository},
	{"federated", (*World).Federated},
	{"application", (*World).Application},
}

// Story is what is shown, in order; each step leaves the world as the next one wants it.
var Story = []Step{
	{"call-across-clusters", (*World).CallAcrossClusters},
	{"wire-is-encrypted", (*World).WireIsEncrypted},
	{"policy-from-git", (*World).PolicyFromGit},
	{"revert", (*World).Revert},
	{"failover", (*World).Failover},
	{"agents-killed", (*World).AgentsKilled},
	{"control-plane-down", (*World).ControlPlaneDown},
}

// Named picks steps of the setup and the story by name, in the order given; no names mean the whole story. The second
// value is the first name that is no step's.
func Named(names []string) ([]Step, string) {
	if len(names) == 0 {
		return Story, ""
	}
	var picked []Step
	for _, name := range names {
		at := slices.IndexFunc(slices.Concat(Setup, Story), func(s Step) bool { return s.Name == name })
		if at < 0 {
			return nil, name
		}
		picked = append(picked, slices.Concat(Setup, Story)[at])
	}
	return picked, ""
}

// Tell does the steps in order and stops at the first that fails.
func (w *World) Tell(ctx context.Context, steps []Step) error {
	for _, step := range steps {
		if err := step.Do(w, ctx); err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
	}
	return nil
}

// Down removes every trace of the instance.
func (w *World) Down(ctx context.Context) error { return w.labLive(ctx, "down") }

// TryNext tells a newcomer what to do with the running clusters.
func (w *World) TryNext(ctx context.Context) {
	w.Title("It stays up. Try next")
	for _, cluster := range []string{East, West} {
		path, err := w.Kubeconfig(ctx, cluster)
		if err != nil {
			w.Say("%v", err)
			continue
		}
		w.Say("export %s=%s", cluster, path)
	}
	w.Say("export PATH=%s/bin:$PATH    # kubectl, kubectl-fairlead", w.Root)
	w.Say("kubectl --kubeconfig $east get pods -A -o wide")
	w.Say("kubectl fairlead status  --kubeconfig $east --kubeconfig $west")
	w.Say("kubectl fairlead observe --kubeconfig $east --follow")
	w.Say("git clone %s    # commit a policy and watch it reach the kernels", w.Repository())
	w.Say("make demo-down    # remove every trace")
}

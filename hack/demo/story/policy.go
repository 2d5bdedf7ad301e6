// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// PolicyRepository fills the Git server's repository and points a PolicySource of each cluster at it.
func (w *World) PolicyRepository(ctx context.Context) error {
	w.Title("A policy repository")
	if err := w.checkout(ctx); err != nil {
		return err
	}
	source, err := os.ReadFile(filepath.Join(w.Root, "config/samples/demo/policysource.yaml"))
	if err != nil {
		return fmt.Errorf("read the sample PolicySource: %w", err)
	}
	for _, cluster := range []string{East, West} {
		if err := w.Apply(ctx, cluster, string(source)); err != nil {
			return err
		}
	}
	head, err := w.git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	// The agents may only be starting: this is also the wait for them.
	if _, err := w.appliedEverywhere(ctx, strings.TrimSpace(head), 4*time.Minute); err != nil {
		return err
	}
	w.Passed("both clusters follow %s", "http://10.99.0.20/policies.git")
	return nil
}

// Repository is the demo's checkout of the policy repository.
func (w *World) Repository() string { return filepath.Join(w.StateDir(), "policies") }

func (w *World) git(ctx context.Context, args ...string) (string, error) {
	identity := []string{"-C", w.Repository(), "-c", "user.name=Fairlead demo", "-c", "user.email=demo@fairlead.dev"}
	return w.run(ctx, "git", append(identity, args...)...)
}

// checkout clones the repository anew and empties its policies, so that a second demo begins like the first.
func (w *World) checkout(ctx context.Context) error {
	url, err := w.gitURL()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(w.Repository()); err != nil {
		return fmt.Errorf("remove the old checkout: %w", err)
	}
	if _, err := w.run(ctx, "git", "clone", "-q", url+"/policies.git", w.Repository()); err != nil {
		return err
	}
	if _, err := w.git(ctx, "checkout", "-q", "-B", "main"); err != nil {
		return err
	}
	policies := filepath.Join(w.Repository(), "policies")
	if err := os.RemoveAll(policies); err != nil {
		return fmt.Errorf("empty the repository: %w", err)
	}
	if err := os.MkdirAll(policies, 0o755); err != nil {
		return fmt.Errorf("make the policies folder: %w", err)
	}
	if err := os.WriteFile(filepath.Join(policies, "README.md"), []byte("Network policies of all clusters.\n"), 0o644); err != nil {
		return fmt.Errorf("write the repository's README: %w", err)
	}
	return w.Commit(ctx, "Begin")
}

// Commit pushes everything in the checkout.
func (w *World) Commit(ctx context.Context, message string) error {
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "--allow-empty", "-m", message}, {"push", "-q", "origin", "main"}} {
		if _, err := w.git(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// appliedEverywhere waits until both clusters report the commit as applied and in the kernels of all their nodes.
func (w *World) appliedEverywhere(ctx context.Context, commit string, patience time.Duration) (time.Duration, error) {
	return Eventually(ctx, patience, func(ctx context.Context) error {
		for _, cluster := range []string{East, West} {
			out, err := w.Kubectl(ctx, cluster, "get", "policysource", "-n", "fairlead-system", "policies", "-o",
				"jsonpath={.status.lastAppliedRevision} {.status.nodes.realized}/{.status.nodes.total} {.status.conditions[?(@.type=='Ready')].message}")
			if err != nil {
				return err
			}
			if !strings.Contains(out, commit) || !strings.Contains(out, " 2/2 ") {
				return Unexpected(cluster+" to enforce "+commit+" on 2/2 nodes", out, "kubectl -n fairlead-system describe policysource policies")
			}
		}
		return nil
	})
}

// PolicyFromGit commits a policy, shows it enforced in both clusters, and names who was denied and why.
func (w *World) PolicyFromGit(ctx context.Context) error {
	w.Title("A policy, committed to Git")
	policy, err := os.ReadFile(filepath.Join(w.Root, "config/samples/demo/policy.yaml"))
	if err != nil {
		return fmt.Errorf("read the sample policy: %w", err)
	}
	if err := os.WriteFile(filepath.Join(w.Repository(), "policies", "deathstar.yaml"), policy, 0o644); err != nil {
		return fmt.Errorf("write the policy: %w", err)
	}
	for _, cluster := range []string{East, West} {
		if _, out, err := w.land(ctx, cluster, "xwing", 1); err != nil {
			return Unexpected("an x-wing of "+cluster+" to land while there is no policy", out+err.Error(), "kubectl fairlead observe --verdict denied")
		}
	}
	w.Passed("before: the alliance's x-wings land, from both clusters")
	if err := w.Commit(ctx, "Only the empire may reach the death star"); err != nil {
		return err
	}
	log, err := w.git(ctx, "log", "--oneline", "-1", "--stat")
	if err != nil {
		return err
	}
	w.Say("$ git push")
	w.Show(log)
	head, err := w.git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	commit := strings.TrimSpace(head)
	took, err := w.appliedEverywhere(ctx, commit, time.Minute)
	if err != nil {
		return err
	}
	w.Passed("in the kernels of all four nodes %.1f s after the push", took.Seconds())
	for _, cluster := range []string{East, West} {
		if _, out, err := w.land(ctx, cluster, "tiefighter", 3); err != nil {
			return Unexpected("a TIE fighter of "+cluster+" to land", out+err.Error(), "kubectl fairlead observe --verdict denied")
		}
		_, out, err := w.land(ctx, cluster, "xwing", 1)
		if err == nil || !strings.Contains(out, "TIMEOUT") {
			return Unexpected("an x-wing of "+cluster+" to time out", out, "kubectl fairlead observe")
		}
		w.Passed("%s: TIE fighters land, x-wings time out", cluster)
	}
	return w.deniedIsExplained(ctx, commit)
}

func (w *World) deniedIsExplained(ctx context.Context, commit string) error {
	w.Say("$ kubectl fairlead observe --verdict denied --namespace starwars --last 4")
	var shown string
	_, err := Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
		out, err := w.Plugin(ctx, "observe", "--verdict", "denied", "--namespace", "starwars", "--last", "4")
		shown = out
		if err != nil {
			return err
		}
		for _, want := range []string{"xwing", "deathstar", "policies/deathstar.yaml", commit[:7]} {
			if !strings.Contains(out, want) {
				return Unexpected("a denial that names "+want, out, "kubectl -n fairlead-system logs ds/fairlead-nodeagent")
			}
		}
		return nil
	})
	w.Show(shown)
	if err != nil {
		return err
	}
	w.Passed("the denial names who, the policy, its file and the commit")
	return nil
}

// Revert takes the policy back the way it came.
func (w *World) Revert(ctx context.Context) error {
	w.Title("The commit is reverted")
	if _, err := w.git(ctx, "revert", "--no-edit", "HEAD"); err != nil {
		return err
	}
	if _, err := w.git(ctx, "push", "-q", "origin", "main"); err != nil {
		return err
	}
	took, err := Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
		for _, cluster := range []string{East, West} {
			if _, out, err := w.land(ctx, cluster, "xwing", 1); err != nil {
				return Unexpected("an x-wing of "+cluster+" to land again", out, "kubectl fairlead observe --verdict denied")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.Passed("x-wings of both clusters land again, %.1f s after the push", took.Seconds())
	return nil
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/demo/story"
)

// badInput follows the story: each mistake must be answered clearly where its author looks, and change nothing.
var badInput = []story.Step{
	{Name: "admission-refuses", Do: admissionRefuses},
	{Name: "broken-yaml-in-git", Do: brokenYAMLInGit},
	{Name: "duplicate-cluster-id", Do: duplicateClusterID},
}

func admissionRefuses(w *story.World, ctx context.Context) error {
	for _, c := range []struct{ what, manifest, says string }{
		{"a plaintext store", mesh(`endpoints: ["http://10.99.0.10:2379"]`, "mesh", 7), "https://"},
		{"a second ClusterMesh", mesh(`endpoints: ["https://10.99.0.10:2379"]`, "other", 7), "its name is 'mesh'"},
		{"another cluster id", mesh(`endpoints: ["https://10.99.0.10:2379"]`, "mesh", 7), "can't be changed"},
		{"a peer of two kinds", `
apiVersion: fairlead.dev/v1alpha1
kind: MeshNetworkPolicy
metadata: {name: bad, namespace: starwars}
spec: {podSelector: {}, ingress: {allow: [{peers: [{cidr: 10.0.0.0/8, podSelector: {}}]}]}}
`, "a peer is one of: a cidr"},
		{"a path out of the repository", `
apiVersion: fairlead.dev/v1alpha1
kind: PolicySource
metadata: {name: bad, namespace: starwars}
spec: {git: {url: "http://example.invalid/x.git"}, path: ../../etc, prune: true}
`, "path must stay within the repository"},
	} {
		err := w.Apply(ctx, story.East, c.manifest)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			return story.Unexpected(fmt.Sprintf("%s to be refused with %q", c.what, c.says), fmt.Sprint(err), "config/crd")
		}
		w.Passed("%s is refused: %q", c.what, c.says)
	}
	return nil
}

func mesh(store, name string, id int) string {
	return fmt.Sprintf(`
apiVersion: fairlead.dev/v1alpha1
kind: ClusterMesh
metadata: {name: %s}
spec:
  meshID: demo
  clusterName: east
  clusterID: %d
  podCIDRs: ["10.14.0.0/16", "fd00:14::/48"]
  store: {%s, tlsSecretRef: {name: fairlead-store-tls}}
`, name, id, store)
}

// brokenYAMLInGit wants the error to name the file, and the policy that was in force to stay in force.
func brokenYAMLInGit(w *story.World, ctx context.Context) error {
	if err := w.PolicyFromGit(ctx); err != nil {
		return err
	}
	broken := filepath.Join(w.Repository(), "policies", "broken.yaml")
	if err := os.WriteFile(broken, []byte("apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: x\n"), 0o644); err != nil {
		return fmt.Errorf("write a broken file: %w", err)
	}
	if err := w.Commit(ctx, "Break the tree"); err != nil {
		return err
	}
	for _, cluster := range []string{story.East, story.West} {
		if _, err := story.Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
			out, err := w.Kubectl(ctx, cluster, "get", "policysource", "-n", "fairlead-system", "policies", "-o",
				"jsonpath={.status.conditions[?(@.type=='Ready')].status} {.status.conditions[?(@.type=='Ready')].message}")
			if err != nil {
				return err
			}
			if !strings.HasPrefix(out, "False") || !strings.Contains(out, "policies/broken.yaml") {
				return story.Unexpected("Ready=False naming policies/broken.yaml", out, "kubectl -n fairlead-system describe policysource policies")
			}
			w.Show(cluster + ": " + out)
			return nil
		}); err != nil {
			return err
		}
		out, err := w.Sample(ctx, cluster, "xwing", "call", "--timeout", "2s", "http://deathstar.starwars.svc.cluster.local/")
		if err == nil || !strings.Contains(out, "TIMEOUT") {
			return story.Unexpected("the last good policy to stay in force in "+cluster, out, "kubectl fairlead observe")
		}
	}
	w.Passed("the condition names the file, and the last good policy stays in force")
	return nil
}

// duplicateClusterID lets a third cluster announce itself with a number that is taken.
func duplicateClusterID(w *story.World, ctx context.Context) error {
	err := w.Apply(ctx, story.East, `
apiVersion: fairlead.dev/v1alpha1
kind: MeshCluster
metadata: {name: impostor}
spec: {clusterID: 2, podCIDRs: ["10.34.0.0/16"], acceptance: Manual}
`)
	if err != nil {
		return err
	}
	_, err = story.Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
		out, err := w.Kubectl(ctx, story.East, "get", "meshcluster", "impostor", "-o",
			"jsonpath={.status.conditions[?(@.type=='Accepted')].status} {.status.conditions[?(@.type=='Accepted')].message}")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(out, "False") || !strings.Contains(out, "west") {
			return story.Unexpected("Accepted=False naming west, which has that number", out, "kubectl describe meshcluster impostor")
		}
		w.Show(out)
		return nil
	})
	if err != nil {
		return err
	}
	_, err = w.Kubectl(ctx, story.East, "delete", "meshcluster", "impostor")
	return err
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

// binary is a static program of ours and the package it is built from.
type binary struct{ name, pkg string }

var binaries = []binary{
	{"lab", "./hack/lab"},
	{"operator", "./operator"},
	{"nodeagent", "./nodeagent"},
	{"fairlead-cni", "./nodeagent/cni/plugin"},
	{"kubectl-fairlead", "./kubectl-fairlead"},
	{"sample", "./test/sample"},
}

// images that the clusters run, as arguments of `lab load-image`.
var images = []string{
	"fairlead.local/operator:dev=bin/operator",
	"fairlead.local/nodeagent:dev=bin/nodeagent,bin/fairlead-cni=/fairlead-cni",
	"fairlead.local/sample:dev=bin/sample",
}

// BuildLab makes the lab command alone, which is all that taking the world down needs.
func (w *World) BuildLab(ctx context.Context) error {
	_, err := w.run(ctx, "env", "CGO_ENABLED=0", "go", "build", "-o", w.lab, "./hack/lab")
	return err
}

// Build makes every binary of the project, static, so that each is an image of its own.
func (w *World) Build(ctx context.Context) error {
	w.Title("Build Fairlead")
	for _, b := range binaries {
		begin := time.Now()
		if _, err := w.run(ctx, "env", "CGO_ENABLED=0", "go", "build", "-o", filepath.Join("bin", b.name), b.pkg); err != nil {
			return err
		}
		w.Say("bin/%-18s %5.1f s", b.name, time.Since(begin).Seconds())
	}
	return w.linkKubectl()
}

// linkKubectl puts the lab's kubectl beside our binaries: the machine may have none, and TryNext's commands need one.
func (w *World) linkKubectl() error {
	tools, err := toolchain.Find()
	if err != nil {
		return err
	}
	link := filepath.Join(w.Root, "bin", "kubectl")
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace %s: %w", link, err)
	}
	return os.Symlink(tools.Program("kubectl"), link)
}

// Clusters brings up the two clusters, the WAN and the hub, and loads the images.
func (w *World) Clusters(ctx context.Context) error {
	w.Title("Two real Kubernetes clusters, a WAN, a shared etcd and a Git server")
	w.Say("East's pods get their network from the reference bridge plugin (with masquerading on), west's from Fairlead's own.")
	if err := w.labLive(ctx, "up"); err != nil {
		return err
	}
	return w.labLive(ctx, "load-image", images...)
}

// Install installs Fairlead as a user does, with kubectl, and makes both clusters members of one mesh.
func (w *World) Install(ctx context.Context) error {
	w.Title("Install Fairlead")
	overlay := map[string]string{East: "config/overlays/lab", West: "config/overlays/lab-own-cni"}
	for _, cluster := range []string{East, West} {
		w.Say("%s: kubectl apply -k %s, then the credential for the shared etcd and a ClusterMesh", cluster, overlay[cluster])
		if _, err := w.Kubectl(ctx, cluster, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(w.Root, overlay[cluster])); err != nil {
			return err
		}
		secret, err := w.storeSecret(cluster)
		if err != nil {
			return err
		}
		if err := w.Apply(ctx, cluster, secret); err != nil {
			return err
		}
		if _, err := Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
			return w.Apply(ctx, cluster, clusterMesh(cluster))
		}); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) storeSecret(cluster string) (string, error) {
	pki := filepath.Join(w.StateDir(), "hub", "pki")
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Secret\nmetadata: {name: fairlead-store-tls, namespace: fairlead-system}\nstringData:\n")
	for key, file := range map[string]string{"ca.crt": "ca.crt", "tls.crt": cluster + ".crt", "tls.key": cluster + ".key"} {
		content, err := os.ReadFile(filepath.Join(pki, file))
		if err != nil {
			return "", fmt.Errorf("read %s's credential for the shared etcd: %w", cluster, err)
		}
		fmt.Fprintf(&b, "  %s: |\n    %s\n", key, strings.ReplaceAll(strings.TrimSpace(string(content)), "\n", "\n    "))
	}
	return b.String(), nil
}

// clusterMesh is the one object that makes a cluster a member.
func clusterMesh(cluster string) string {
	number := map[string]int{East: 1, West: 2}[cluster]
	return fmt.Sprintf(`apiVersion: fairlead.dev/v1alpha1
kind: ClusterMesh
metadata: {name: mesh}
spec:
  meshID: demo
  clusterName: %[1]s
  clusterID: %[2]d
  podCIDRs: ["10.%[2]d4.0.0/16", "fd00:%[2]d4::/48"]
  serviceCIDRs: ["10.%[2]d6.0.0/16", "fd00:%[2]d6::/108"]
  region: %[1]s
  store:
    endpoints: ["https://10.99.0.10:2379"]
    tlsSecretRef: {name: fairlead-store-tls}
`, cluster, number)
}

// Federated waits until both clusters see each other, and shows what `kubectl fairlead status` says.
func (w *World) Federated(ctx context.Context) error {
	w.Title("One mesh")
	w.Say("$ kubectl fairlead status --wait")
	out, err := w.Plugin(ctx, "status", "--wait", "--timeout", "3m")
	w.Show(out)
	if err != nil {
		return err
	}
	for _, want := range []string{East, West} {
		if !strings.Contains(out, want) {
			return Unexpected("a status that names "+want, out, "kubectl -n fairlead-system logs deploy/fairlead-operator")
		}
	}
	w.Passed("both clusters are Ready and see each other")
	return nil
}

// Application deploys the sample: clients in both clusters, backends in west only.
func (w *World) Application(ctx context.Context) error {
	w.Title("A sample application")
	manifest, err := os.ReadFile(filepath.Join(w.Root, "config/samples/demo/app.yaml"))
	if err != nil {
		return fmt.Errorf("read the sample application: %w", err)
	}
	w.Say("Service deathstar is annotated fairlead.dev/global=true in both clusters; only west runs pods of it.")
	for _, cluster := range []string{East, West} {
		if err := w.Apply(ctx, cluster, string(manifest)); err != nil {
			return err
		}
		if err := w.Apply(ctx, cluster, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cluster, namespace: starwars}\ndata: {name: %s}\n", cluster)); err != nil {
			return err
		}
	}
	if err := w.scale(ctx, East, 0); err != nil {
		return err
	}
	if err := w.scale(ctx, West, 2); err != nil {
		return err
	}
	for _, cluster := range []string{East, West} {
		for _, namespaced := range [][]string{{"kube-system", "coredns"}, {"starwars", "deathstar"}, {"starwars", "tiefighter"}, {"starwars", "xwing"}} {
			if out, err := w.Kubectl(ctx, cluster, "rollout", "status", "-n", namespaced[0], "deploy/"+namespaced[1], "--timeout=240s"); err != nil {
				return Unexpected(namespaced[1]+" to run in "+cluster, out+err.Error(), "kubectl -n "+namespaced[0]+" describe pods")
			}
		}
		out, err := w.Kubectl(ctx, cluster, "get", "pods", "-n", "starwars", "-o", "wide")
		if err != nil {
			return err
		}
		w.Say("%s:", cluster)
		w.Show(out)
	}
	return nil
}

func (w *World) scale(ctx context.Context, cluster string, replicas int) error {
	_, err := w.Kubectl(ctx, cluster, "scale", "-n", "starwars", "deploy/deathstar", fmt.Sprintf("--replicas=%d", replicas))
	return err
}

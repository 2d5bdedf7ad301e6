// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package addons installs into a cluster what every cluster is expected to
// have and Kubernetes itself does not bring: the cluster's DNS.
package addons

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"text/template"

	"github.com/fairlead-mesh/fairlead/hack/lab/image"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

//go:embed manifests/coredns.yaml
var corednsText string

var coredns = template.Must(template.New("coredns").Parse(corednsText))

// Manifests renders the cluster's add-ons.
func Manifests(c *topology.Cluster) ([]byte, error) {
	var buf bytes.Buffer
	err := coredns.Execute(&buf, map[string]any{"Image": image.CoreDNSName, "DNS4": c.DNS4, "DNS6": c.DNS6})
	if err != nil {
		return nil, fmt.Errorf("render add-ons of %s: %w", c.Name, err)
	}
	return buf.Bytes(), nil
}

// Apply installs the add-ons of the cluster unless the marker file says that
// just these were installed.
func Apply(ctx context.Context, kubectl, kubeconfig string, c *topology.Cluster, marker string) error {
	manifests, err := Manifests(c)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(marker); err == nil && bytes.Equal(have, manifests) {
		return nil
	}
	cmd := exec.CommandContext(ctx, kubectl, "--kubeconfig", kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", "-")
	cmd.Stdin = bytes.NewReader(manifests)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install add-ons in %s: %w: %s", c.Name, err, bytes.TrimSpace(out))
	}
	return os.WriteFile(marker, manifests, 0o644)
}

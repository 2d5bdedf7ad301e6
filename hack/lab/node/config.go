// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"

	"github.com/fairlead-mesh/fairlead/hack/lab/image"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

//go:embed config
var configFiles embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(configFiles, "config/*"))

type configData struct {
	Node                           *topology.Node
	Cluster                        *topology.Cluster
	Cgroup                         string
	CA, Cert, Key, ProxyKubeconfig string
	Runc                           string
}

// Pause is the image of the pods' first process.
func (configData) Pause() string { return image.PauseName }

func (n *Node) writeConfig(data configData) error {
	for _, name := range []string{"containerd.toml", "kubelet.yaml", "kube-proxy.yaml"} {
		if err := render(name, data, n.file(name)); err != nil {
			return fmt.Errorf("node %s: %w", n.node.Name, err)
		}
	}
	return nil
}

// WriteCNI installs the reference plugins' configuration for the node's pod
// ranges, which makes the node ready for pods.
func (n *Node) WriteCNI(podCIDRs []netip.Prefix) error {
	data := struct{ PodCIDRs []netip.Prefix }{podCIDRs}
	if err := render("cni.conflist", data, n.file("cni/net.d/10-reference.conflist")); err != nil {
		return fmt.Errorf("node %s: %w", n.node.Name, err)
	}
	return nil
}

// render writes the file, whole or not at all: containerd watches its
// directory and would read a half-written one.
func render(name string, data any, file string) error {
	var buf bytes.Buffer
	if err := templates.ExecuteTemplate(&buf, name, data); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, buf.Bytes()) {
		return nil
	}
	next := filepath.Join(filepath.Dir(file), ".new-"+filepath.Base(file))
	if err := os.WriteFile(next, buf.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.Rename(next, file); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

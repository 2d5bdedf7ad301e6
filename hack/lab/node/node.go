// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node runs one Kubernetes node: containerd, kubelet and kube-proxy in
// the node's network and mount namespaces. Inside, everything is at the paths
// a real node has it; outside, it all lies in the node's state directory.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/controlplane"
	"github.com/fairlead-mesh/fairlead/hack/lab/netlab"
	"github.com/fairlead-mesh/fairlead/hack/lab/process"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// Node is one node of one instance.
type Node struct {
	instance *topology.Instance
	cluster  *topology.Cluster
	node     *topology.Node
	dir      string
}

// Open names the node with its files in dir.
func Open(in *topology.Instance, c *topology.Cluster, n *topology.Node, dir string) *Node {
	return &Node{instance: in, cluster: c, node: n, dir: dir}
}

// private lists the directories that each node has of its own, and their
// places in the node's state directory.
var private = map[string]string{
	"/etc/cni/net.d":      "cni/net.d",
	"/opt/cni/bin":        "cni/bin",
	"/var/lib/cni":        "cni/state",
	"/var/lib/containerd": "containerd",
	"/var/lib/kubelet":    "kubelet",
	"/var/lib/fairlead":   "fairlead",
	"/var/log/pods":       "log/pods",
	"/var/log/containers": "log/containers",
}

// MountPoints lists the directories that must exist on the machine for a
// node's own to be mounted over them.
func MountPoints() []string {
	var points []string
	for target := range private {
		points = append(points, target)
	}
	return points
}

func (n *Node) file(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

// Name is the node's name.
func (n *Node) Name() string { return n.node.Name }

// MountFile is where the node's mount namespace is kept.
func (n *Node) MountFile() string { return n.file("mnt.ns") }

// Where is the place in which the node's programs run.
func (n *Node) Where() process.Where {
	return process.Where{NetNS: netlab.Path(n.instance.NetNS(n.node.Name)), MntNS: n.MountFile()}
}

// Processes lists the node's processes in the order of their start.
func (n *Node) Processes(tools *toolchain.Cache) []process.Spec {
	path := "PATH=" + tools.Dirs() + ":/usr/sbin:/usr/bin:/sbin:/bin"
	spec := func(name string, flags ...string) process.Spec {
		return process.Spec{
			Name: name, Dir: n.file("run"), Argv: append([]string{tools.Program(name)}, flags...), Env: []string{path},
			Where: n.Where(), Cgroup: n.instance.Cgroup(n.node.Name),
		}
	}
	zone := fmt.Sprintf("topology.kubernetes.io/region=%s,topology.kubernetes.io/zone=%s-a", n.cluster.Name, n.cluster.Name)
	return []process.Spec{
		spec("containerd", "--config="+n.file("containerd.toml")),
		spec("kubelet", "--config="+n.file("kubelet.yaml"), "--kubeconfig="+n.file("kubelet.kubeconfig"),
			"--root-dir=/var/lib/kubelet", "--hostname-override="+n.node.Name,
			fmt.Sprintf("--node-ip=%s,%s", n.node.Addr4.Addr(), n.node.Addr6.Addr()), "--node-labels="+zone),
		spec("kube-proxy", "--config="+n.file("kube-proxy.yaml")),
	}
}

// Prepare makes the node's mount namespace, cgroups, certificates and
// configuration.
func (n *Node) Prepare(cp *controlplane.ControlPlane, tools *toolchain.Cache) error {
	binds := map[string]string{}
	for target, source := range private {
		binds[target] = n.file(source)
	}
	if err := netlab.EnsureMount(netlab.MountNS{File: n.MountFile(), NetNS: n.instance.NetNS(n.node.Name), Binds: binds}); err != nil {
		return fmt.Errorf("node %s: %w", n.node.Name, err)
	}
	if err := process.EnsureCgroup(n.instance.Cgroup(n.node.Name)); err != nil {
		return fmt.Errorf("node %s: %w", n.node.Name, err)
	}
	cert, key, err := cp.NodeIdentity(n.node, n.file("kubelet.kubeconfig"))
	if err != nil {
		return fmt.Errorf("node %s: %w", n.node.Name, err)
	}
	return n.writeConfig(configData{
		Node: n.node, Cluster: n.cluster, Cgroup: n.instance.Cgroup(n.node.Name),
		CA: cp.CA(), Cert: cert, Key: key, ProxyKubeconfig: cp.ProxyKubeconfig(),
		Runc: tools.Program("runc"),
	})
}

// UpRuntime starts containerd if it does not run and fills the directory of
// CNI plugins.
func (n *Node) UpRuntime(ctx context.Context, tools *toolchain.Cache) error {
	for _, plugin := range toolchain.CNIPlugins {
		if err := copyFile(tools.Program(plugin), n.file("cni/bin", plugin)); err != nil {
			return fmt.Errorf("node %s: install CNI plugin: %w", n.node.Name, err)
		}
	}
	containerd := n.Processes(tools)[0]
	if _, err := process.Start(containerd); err != nil {
		return fmt.Errorf("node %s: %w", n.node.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := containerd.Wait(ctx, func(ctx context.Context) error {
		return n.ctr(ctx, tools, "version")
	})
	if err != nil {
		return fmt.Errorf("node %s: %w", n.node.Name, err)
	}
	return nil
}

// UpKubelet starts kubelet and kube-proxy if they do not run.
func (n *Node) UpKubelet(tools *toolchain.Cache) error {
	for _, s := range n.Processes(tools)[1:] {
		if _, err := process.Start(s); err != nil {
			return fmt.Errorf("node %s: %w", n.node.Name, err)
		}
	}
	return nil
}

// ctr runs containerd's client inside the node.
func (n *Node) ctr(ctx context.Context, tools *toolchain.Cache, args ...string) error {
	argv := n.Where().Command(append([]string{tools.Program("ctr"), "-n", "k8s.io"}, args...)...)
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Import brings the image in the archive to the node unless the node has just
// this image. The name and digest are those of the image.
func (n *Node) Import(ctx context.Context, tools *toolchain.Cache, archive, name, digest string) error {
	// Beside containerd's own store, so that both go together.
	marker := n.file("containerd", "lab-images", strings.NewReplacer("/", "_", ":", "_").Replace(name))
	if have, err := os.ReadFile(marker); err == nil && string(have) == digest {
		return nil
	}
	if err := n.ctr(ctx, tools, "images", "import", archive); err != nil {
		return fmt.Errorf("node %s: import %s: %w", n.node.Name, name, err)
	}
	if err := os.MkdirAll(filepath.Dir(marker), 0o755); err != nil {
		return fmt.Errorf("node %s: note image: %w", n.node.Name, err)
	}
	return os.WriteFile(marker, []byte(digest), 0o644)
}

// copyFile copies a program, whole or not at all, unless a file of the same
// size is there.
func copyFile(source, target string) error {
	in, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if out, err := os.Stat(target); err == nil && out.Size() == in.Size() {
		return nil
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("copy: %w", err)
	}
	content, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	if err := os.WriteFile(target+".new", content, 0o755); err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	return os.Rename(target+".new", target)
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-mesh/fairlead/hack/lab/addons"
	"github.com/fairlead-mesh/fairlead/hack/lab/controlplane"
	"github.com/fairlead-mesh/fairlead/hack/lab/image"
	"github.com/fairlead-mesh/fairlead/hack/lab/node"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// bundle is the set of images that every node gets.
type bundle struct {
	wait  func() error // until they are built
	items []bundleItem
}

type bundleItem struct{ archive, name, digest string }

func (b *bundle) build(ctx context.Context, dir string, tools *toolchain.Cache) error {
	pause, err := image.Pause(ctx, dir)
	if err != nil {
		return err
	}
	for i, img := range []image.Image{pause, image.CoreDNS(tools.Program("coredns"))} {
		archive := filepath.Join(dir, fmt.Sprintf("builtin-%d.tar", i))
		digest, err := img.Write(archive)
		if err != nil {
			return err
		}
		b.items = append(b.items, bundleItem{archive, img.Name, digest})
	}
	return nil
}

// cluster brings one cluster up: control plane and container runtimes beside
// each other, then the kubelets, then what needs the nodes' pod ranges.
func (u *up) cluster(ctx context.Context, c *topology.Cluster, images *bundle) error {
	cp, err := u.controlPlane(c.Name)
	if err != nil {
		return err
	}
	nodes, err := u.nodes(c.Name)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := cp.Up(gctx, u.tools); err != nil {
			return err
		}
		u.steps.done("%s: control plane at %s", c.Name, c.UplinkAPIServer())
		return nil
	})
	for _, n := range nodes {
		g.Go(func() error { return u.runtime(gctx, cp, n, images) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := n.UpKubelet(u.tools); err != nil {
			return err
		}
	}
	if err := addons.Apply(ctx, u.tools.Program("kubectl"), cp.Kubeconfig(), c, u.path("clusters", c.Name, "addons.yaml")); err != nil {
		return err
	}
	return u.pods(ctx, c, cp, nodes)
}

func (u *up) runtime(ctx context.Context, cp *controlplane.ControlPlane, n *node.Node, images *bundle) error {
	if err := n.Prepare(cp, u.tools); err != nil {
		return err
	}
	if err := n.UpRuntime(ctx, u.tools); err != nil {
		return err
	}
	if err := images.wait(); err != nil {
		return err
	}
	for _, i := range images.items {
		if err := n.Import(ctx, u.tools, i.archive, i.name, i.digest); err != nil {
			return err
		}
	}
	return nil
}

// pods waits until every node is registered and has its pod ranges, and makes
// pods possible: routes, and in a cluster with a CNI the CNI's configuration.
func (u *up) pods(ctx context.Context, c *topology.Cluster, cp *controlplane.ControlPlane, nodes []*node.Node) error {
	client, err := cp.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, n := range nodes {
		// The API server believes a dead kubelet's last word for a while.
		if err := n.WaitHealthy(ctx, u.tools); err != nil {
			return err
		}
	}
	ranges := map[string][]netip.Prefix{}
	for _, n := range nodes {
		kubelet := n.Processes(u.tools)[1]
		err := kubelet.Wait(ctx, func(ctx context.Context) error {
			ranges[n.Name()], err = podCIDRs(ctx, client, n.Name())
			return err
		})
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name(), err)
		}
	}
	if err := routePods(u.Topology, c, ranges); err != nil {
		return err
	}
	if !c.CNI {
		u.steps.done("%s: %d nodes registered; they become ready when a CNI is installed", c.Name, len(nodes))
		return nil
	}
	for _, n := range nodes {
		if err := n.WriteCNI(ranges[n.Name()]); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		if err := n.Processes(u.tools)[1].Wait(ctx, func(ctx context.Context) error { return nodeReady(ctx, client, n.Name()) }); err != nil {
			return fmt.Errorf("node %s: %w", n.Name(), err)
		}
	}
	u.steps.done("%s: %d nodes ready", c.Name, len(nodes))
	return nil
}

// nodeObject is what the lab reads of a Node.
type nodeObject struct {
	Spec struct {
		PodCIDRs []netip.Prefix `json:"podCIDRs"`
	} `json:"spec"`
	Status struct {
		Conditions []struct{ Type, Status, Message string } `json:"conditions"`
	} `json:"status"`
}

func podCIDRs(ctx context.Context, client *controlplane.Client, name string) ([]netip.Prefix, error) {
	var n nodeObject
	if err := client.Get(ctx, "/api/v1/nodes/"+name, &n); err != nil {
		return nil, err
	}
	if len(n.Spec.PodCIDRs) == 0 {
		return nil, fmt.Errorf("node %s has no pod ranges yet", name)
	}
	return n.Spec.PodCIDRs, nil
}

func nodeReady(ctx context.Context, client *controlplane.Client, name string) error {
	var n nodeObject
	if err := client.Get(ctx, "/api/v1/nodes/"+name, &n); err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			if c.Status == "True" {
				return nil
			}
			return fmt.Errorf("node %s: %s", name, c.Message)
		}
	}
	return fmt.Errorf("node %s has not reported yet", name)
}

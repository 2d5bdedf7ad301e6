// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

// The two families of addresses, by index.
const (
	four = 0
	six  = 1
)

// pair is an address of each family; empty where there is none.
type pair [2]string

func pairOf(addrs []string) (p pair) {
	for _, text := range addrs {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		family := four
		if addr.Is6() {
			family = six
		}
		if p[family] == "" {
			p[family] = text
		}
	}
	return p
}

// place is a cluster with the scenario in it.
type place struct {
	cluster
	pods     map[string]pod
	nodes    []pair // by number, from 0
	services map[string]pair
}

// pod is an actor with its network.
type pod struct {
	actor
	ip, gateway pair
	mac, router string // hardware addresses, its own and its gateway's
	linkRouter  string // the gateway's link-local address
}

// setUp brings the scenario up without policies.
func setUp(ctx context.Context, c cluster) error {
	fmt.Println("starting pods in", c.name)
	if err := c.apply(ctx, workload(c.name)); err != nil {
		return err
	}
	if _, err := c.run(ctx, nil, "patch", "-n", namespace, "service", "victims-balanced", "--subresource=status", "--type=merge", "-p", balancer); err != nil {
		return err
	}
	_, err := c.run(ctx, nil, "wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=240s")
	return err
}

// tearDown removes it, and waits until it is gone.
func tearDown(ctx context.Context, c cluster) error {
	if err := c.delete(ctx, policies+"---"+nodesClosed); err != nil {
		return err
	}
	_, err := c.run(ctx, nil, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=180s")
	return err
}

// look asks the cluster for all addresses.
func look(ctx context.Context, c cluster) (*place, error) {
	p := &place{cluster: c, pods: map[string]pod{}, services: map[string]pair{}}
	var nodes struct {
		Items []struct {
			Status struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	if err := c.get(ctx, &nodes, "nodes"); err != nil {
		return nil, err
	}
	for _, n := range nodes.Items {
		var addrs []string
		for _, a := range n.Status.Addresses {
			if a.Type == "InternalIP" {
				addrs = append(addrs, a.Address)
			}
		}
		p.nodes = append(p.nodes, pairOf(addrs))
	}
	if len(p.nodes) < 2 {
		return nil, fmt.Errorf("%s has %d nodes, want two", c.name, len(p.nodes))
	}
	var services struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ ClusterIPs []string }
		}
	}
	for _, ns := range []string{namespace, "default", "kube-system"} {
		if err := c.get(ctx, &services, "services", "-n", ns); err != nil {
			return nil, err
		}
		for _, s := range services.Items {
			p.services[s.Metadata.Name] = pairOf(s.Spec.ClusterIPs)
		}
	}
	return p, p.lookAtPods(ctx)
}

func (c cluster) get(ctx context.Context, into any, what ...string) error {
	out, err := c.run(ctx, nil, append([]string{"get", "-o", "json"}, what...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("read %s: %w", what[0], err)
	}
	return nil
}

func (p *place) lookAtPods(ctx context.Context) error {
	found := make([]pod, len(actors))
	var g errgroup.Group
	g.SetLimit(4)
	for i, a := range actors {
		g.Go(func() error {
			if a.host {
				found[i] = pod{actor: a, ip: p.nodes[a.node-1]}
				return nil
			}
			out, err := p.attacker(ctx, a.name, nil, "self")
			if err != nil {
				return err
			}
			var s job.Self
			if err := json.Unmarshal(out, &s); err != nil {
				return fmt.Errorf("read what %s knows of itself: %w", a.name, err)
			}
			found[i] = pod{actor: a, ip: pairOf(s.Addrs), gateway: pairOf(s.Gateways), mac: s.MAC, router: s.GateMAC}
			if found[i].ip[four] == "" || found[i].ip[six] == "" {
				return fmt.Errorf("%s of %s has the addresses %v, want both families", a.name, p.name, s.Addrs)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, f := range found {
		f.linkRouter = linkLocal(f.router)
		p.pods[f.name] = f
	}
	return nil
}

// linkLocal is the address that an interface with this hardware address gives itself.
func linkLocal(mac string) string {
	var b [6]byte
	if _, err := fmt.Sscanf(mac, "%02x:%02x:%02x:%02x:%02x:%02x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]); err != nil {
		return ""
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: b[0] ^ 2, 9: b[1], 10: b[2], 11: 0xff, 12: 0xfe, 13: b[3], 14: b[4], 15: b[5]}).String()
}

// nobody is an address in a pod's subnet that no pod has, as long as there are few.
func (p pod) nobody(family int) string {
	addr := netip.MustParseAddr(p.ip[family])
	b := addr.AsSlice()
	b[len(b)-1] = 250
	addr, _ = netip.AddrFromSlice(b)
	return addr.String()
}

// subnetEnds are the first and the last address of the /24 around an IPv4 address, or the first of an IPv6 /64.
func subnetEnds(text string) []string {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	b := addr.AsSlice()
	if addr.Is6() {
		first, _ := netip.AddrFromSlice(slices.Concat(b[:8], make([]byte, 8)))
		return []string{first.String()}
	}
	head := text[:strings.LastIndex(text, ".")]
	return []string{head + ".0", head + ".255"}
}

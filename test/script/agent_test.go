// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/agent"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

func rec(t *testing.T, cluster string, p any) *relayv1.Change {
	r := &recordv1.Record{Cluster: cluster}
	switch p := p.(type) {
	case *recordv1.Cluster:
		r.Payload = &recordv1.Record_ClusterInfo{ClusterInfo: p}
	case *recordv1.Node:
		r.Payload = &recordv1.Record_Node{Node: p}
	case *recordv1.Identity:
		r.Payload = &recordv1.Record_Identity{Identity: p}
	case *recordv1.Endpoint:
		r.Payload = &recordv1.Record_Endpoint{Endpoint: p}
	case *recordv1.Policy:
		r.Payload = &recordv1.Record_Policy{Policy: p}
	}
	key, err := record.Key(r)
	if err != nil {
		t.Fatal(err)
	}
	return &relayv1.Change{Key: key, Record: r}
}

func cl(name string, id uint32, cidr string) *recordv1.Cluster {
	return &recordv1.Cluster{Name: name, Id: id, MeshId: "m", PodCidrs: []string{cidr}, Encryption: &recordv1.Encryption{Mode: "WireGuard", Scope: "All"}}
}

func nd(name, addr, cidr string) *recordv1.Node {
	return &recordv1.Node{Name: name, Addresses: []string{addr}, PodCidrs: []string{cidr}, WireguardPublicKey: publicKey(name).String(), WireguardPort: 51871, PodsInPodCidrs: true}
}

func id(n uint32, cluster string) *recordv1.Identity {
	return &recordv1.Identity{Id: n, Labels: map[string]string{"app": "x", "fairlead.dev/cluster": cluster, "fairlead.dev/namespace": "default", "fairlead.dev/service-account": "default"}}
}

func ep(name, addr string, id uint32, node string) *recordv1.Endpoint {
	return &recordv1.Endpoint{Namespace: "default", Name: name, Addresses: []string{addr}, Identity: id, Node: node}
}

func east(t *testing.T, name string) []*relayv1.Change {
	return []*relayv1.Change{rec(t, name, cl(name, 1, "10.1.0.0/16")), rec(t, name, nd("e1", "192.0.2.1", "10.1.0.0/24")),
		rec(t, name, id(1<<16|256, name)), rec(t, name, ep("p1", "10.1.0.5", 1<<16|256, "e1"))}
}

func west(t *testing.T) []*relayv1.Change {
	return []*relayv1.Change{rec(t, "west", cl("west", 2, "10.2.0.0/16")), rec(t, "west", nd("w1", "192.0.2.2", "10.2.0.0/24")),
		rec(t, "west", id(2<<16|256, "west")), rec(t, "west", ep("q1", "10.2.0.5", 2<<16|256, "w1"))}
}

func snap(epoch string, rev uint64, states []*relayv1.ClusterState, ch ...[]*relayv1.Change) *relayv1.Batch {
	b := &relayv1.Batch{At: &relayv1.ResumePoint{Epoch: epoch, Revision: rev}, SnapshotStart: true, SnapshotEnd: true, Clusters: states}
	for _, c := range ch {
		b.Changes = append(b.Changes, c...)
	}
	return b
}

func st(name string, local, synced bool) *relayv1.ClusterState {
	return &relayv1.ClusterState{Name: name, Local: local, Synced: synced, Stale: !synced}
}

func begin(t *testing.T, k *kernel, disk string, d agent.Drivers) (*agent.Agent, func()) {
	cfg := agent.Config{Node: "e1", Version: "t", RelayTimeout: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
	if disk != "" {
		cfg.Snapshot, cfg.SaveEvery = filepath.Join(disk, "snapshot"), 10*time.Millisecond
	}
	a := agent.New(cfg, d, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx, "") }()
	return a, func() { cancel(); <-done }
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func handle(t *testing.T, a *agent.Agent, b *relayv1.Batch) {
	t.Helper()
	if err := a.Intake.Handle(b); err != nil {
		t.Fatal(err)
	}
}

type gate struct {
	*fakeMap[netip.Prefix, uint32]
	entered, leave chan struct{}
}

func (g gate) Update(ctx context.Context, k []netip.Prefix, v []uint32) []error {
	for _, p := range k {
		if p.String() == "10.2.0.0/16" {
			close(g.entered)
			<-g.leave
		}
	}
	return g.fakeMap.Update(ctx, k, v)
}

type slowLinks struct {
	nodeLinks
	changed chan func()
}

func (s slowLinks) HostSide(a netip.Addr) (links.Link, error) {
	if a.String() == "10.1.0.6" {
		time.Sleep(300 * time.Millisecond) // a silent pod: the kernel may take a second to find it
	}
	return s.nodeLinks.HostSide(a)
}

func (s slowLinks) Watch(ctx context.Context, changed func()) error {
	s.changed <- changed
	return s.nodeLinks.Watch(ctx, changed)
}

func deny(t *testing.T) *relayv1.Change {
	return rec(t, "east", &recordv1.Policy{Kind: "NetworkPolicy", Namespace: "default", Name: "deny", SpecJson: []byte(`{"podSelector":{},"policyTypes":["Ingress"]}`), Provenance: &recordv1.Provenance{Revision: "r2"}})
}

// The tables may lag behind the records: a pod that only the newest records know has its programs from an earlier run, and
// keeps them however early links are looked at.
func TestAPodKeepsItsProgramsWhileItIsPlanned(t *testing.T) {
	k, disk := newKernel("e1"), t.TempDir()
	own := []*relayv1.ClusterState{st("east", true, true)}
	p2 := rec(t, "east", ep("p2", "10.1.0.6", 1<<16|256, "e1"))
	hooked := func() bool {
		_, ok := k.hooks.get(table.Hook{Role: table.RolePod, Ifindex: 106})
		return ok
	}
	saved := func(a *agent.Agent, revision uint64) func() bool {
		return func() bool { return a.State().Applied.Revision == revision }
	}

	a, end := begin(t, k, disk, k.drivers())
	handle(t, a, snap("a", 1, own, east(t, "east")))
	await(t, "records applied", saved(a, 1))
	time.Sleep(100 * time.Millisecond) // SaveEvery is 10 ms
	end()
	a, end = begin(t, k, "", k.drivers()) // the disk is full: p2 comes, and is not saved
	handle(t, a, snap("a", 2, own, append(east(t, "east"), p2)))
	await(t, "p2 has its programs", hooked)
	end()

	d := k.drivers()
	g := gate{k.guards, make(chan struct{}), make(chan struct{})}
	l := slowLinks{nodeLinks{k}, make(chan func(), 1)}
	d.Routes.Guards, d.Links = g, l
	a, end = begin(t, k, disk, d)
	defer end()
	await(t, "planned from the disk", func() bool { return a.Synced().Planned })
	handle(t, a, &relayv1.Batch{At: &relayv1.ResumePoint{Epoch: "a", Revision: 3}, Changes: west(t)[:1]})
	<-g.entered // a pass is underway when the stream catches up
	handle(t, a, &relayv1.Batch{At: &relayv1.ResumePoint{Epoch: "a", Revision: 4}, Changes: []*relayv1.Change{p2}, Clusters: own})
	(<-l.changed)()
	time.Sleep(100 * time.Millisecond) // the links are looked at
	close(g.leave)
	await(t, "all applied", func() bool {
		if !hooked() {
			t.Fatal("p2 runs without programs")
		}
		return a.State().Applied.Revision == 4
	})
}

// Settings that the kernel refuses wait, as rows do, and the agent says so.
func TestRefusedSettingsWait(t *testing.T) {
	k := newKernel("e1")
	k.config.fail(forever)
	a, end := begin(t, k, "", k.drivers())
	defer end()
	handle(t, a, snap("a", 1, []*relayv1.ClusterState{st("east", true, true)}, east(t, "east")))
	await(t, "the refusal is reported", func() bool {
		return slices.ContainsFunc(a.State().Problems, func(p report.Problem) bool { return strings.Contains(p.Message, "settings") })
	})
	if a.State().Applied.Revision != 0 {
		t.Error("records count as applied while the settings are not written")
	}
	k.config.fail(0)
	await(t, "records applied", func() bool { return a.State().Applied.Revision == 1 })
	if cfg, _ := k.config.get("config"); cfg.TunnelIfindex == 0 {
		t.Error("the tunnel's device is not in the settings")
	}
}

// An upgrade that replaces maps swaps the programs of pods when policy is in force in the new ones; a pod that has none gets
// them at once, and is closed.
func TestAnUpgradeSwapsProgramsWhenTheMapsAreFilled(t *testing.T) {
	for _, former := range []bool{false, true} {
		k := newKernel("e1")
		k.config.fail(forever) // the epoch can't be raised, so no policy comes into force
		d := k.drivers()
		d.Outdated = func(h table.Hook) bool { return former && h.Role == table.RolePod }
		a, end := begin(t, k, "", d)
		defer end()
		handle(t, a, snap("a", 1, []*relayv1.ClusterState{st("east", true, true)}, east(t, "east")))
		hook := table.Hook{Role: table.RolePod, Ifindex: uint32(podIndex(netip.MustParseAddr("10.1.0.5")))}
		hooked := func() bool { _, ok := k.hooks.get(hook); return ok }
		if !former {
			await(t, "a new pod's programs", hooked)
			continue
		}
		await(t, "the wait is reported", func() bool {
			return slices.ContainsFunc(a.State().Problems, func(p report.Problem) bool { return strings.Contains(p.Message, "former version's programs") })
		})
		if hooked() {
			t.Error("programs were swapped before policy was in force")
		}
		k.config.fail(0)
		await(t, "the programs are swapped", hooked)
	}
}

// awaitRefusal waits for the report of the only policy, which must never be one of success.
func awaitRefusal(t *testing.T, a *agent.Agent) {
	t.Helper()
	await(t, "the policy is reported with its problem", func() bool {
		reported := a.State().Policies
		if len(reported) == 0 {
			return false
		}
		if reported[0].Error == "" {
			t.Fatalf("reported as realized: %+v", reported[0])
		}
		return true
	})
}

// A policy is reported at the revision that is in force, not at the one that is planned.
func TestAPolicyIsReportedOnceInForce(t *testing.T) {
	own := []*relayv1.ClusterState{st("east", true, true)}
	t.Run("the epoch is refused", func(t *testing.T) {
		k := newKernel("e1")
		a, end := begin(t, k, "", k.drivers())
		defer end()
		handle(t, a, snap("a", 1, own, east(t, "east")))
		await(t, "records applied", func() bool { return a.State().Applied.Revision == 1 })
		k.config.fail(forever)
		handle(t, a, &relayv1.Batch{At: &relayv1.ResumePoint{Epoch: "a", Revision: 2}, Changes: []*relayv1.Change{deny(t)}})
		awaitRefusal(t, a)
		k.config.fail(0)
		await(t, "the policy is in force", func() bool {
			s := a.State()
			return s.Applied.Revision == 2 && len(s.Policies) == 1 && s.Policies[0].Error == ""
		})
	})
	t.Run("an edit at the same revision", func(t *testing.T) {
		k := newKernel("e1")
		a, end := begin(t, k, "", k.drivers())
		defer end()
		edited := deny(t)
		p := edited.GetRecord().GetPolicy()
		p.Generation, p.SpecJson = 2, []byte(`{"podSelector":{},"policyTypes":["Ingress"],"ingress":[{}]}`)
		content := func(c *relayv1.Change) string {
			o, err := record.Parse(c.GetRecord())
			if err != nil {
				t.Fatal(err)
			}
			return o.(*record.Policy).Content()
		}
		before, after := content(deny(t)), content(edited)
		reported := func() report.Policy {
			if ps := a.State().Policies; len(ps) == 1 {
				return ps[0]
			}
			return report.Policy{}
		}
		handle(t, a, snap("a", 1, own, append(east(t, "east"), deny(t))))
		await(t, "the policy is in force", func() bool { return reported().Error == "" && reported().Content == before })
		k.config.fail(forever)
		handle(t, a, &relayv1.Batch{At: &relayv1.ResumePoint{Epoch: "a", Revision: 2}, Changes: []*relayv1.Change{edited}})
		await(t, "the edit is reported with its problem", func() bool {
			r := reported()
			if r.Error == "" && r.Content != before {
				t.Fatalf("reported as realized: %+v", r)
			}
			return r.Error != ""
		})
		k.config.fail(0)
		await(t, "the edit is in force", func() bool { return reported().Error == "" && reported().Content == after })
	})
	t.Run("no BPF", func(t *testing.T) {
		k := newKernel("e1")
		d := agent.Broken(errors.New("this kernel has no BPF"))
		d.Links, d.OpenWireGuard = k.drivers().Links, k.drivers().OpenWireGuard
		a, end := begin(t, k, "", d)
		defer end()
		handle(t, a, snap("a", 1, own, append(east(t, "east"), deny(t))))
		awaitRefusal(t, a)
	})
}

// A cluster that was deleted while nobody listened goes with the next snapshot.
func TestADeletedClusterGoesWithTheSnapshot(t *testing.T) {
	k := newKernel("e1")
	a, end := begin(t, k, "", k.drivers())
	defer end()
	both := []*relayv1.ClusterState{st("east", true, true), st("west", false, true)}
	handle(t, a, snap("a", 1, both, east(t, "east"), west(t)))
	address := netip.MustParseAddr("10.2.0.5")
	there := func() bool {
		_, ok := k.addresses.get(address)
		return ok
	}
	await(t, "west's address is there", there)
	handle(t, a, snap("b", 1, []*relayv1.ClusterState{st("east", true, true)}, east(t, "east")))
	await(t, "west's address went", func() bool { return !there() })
	await(t, "the agent knows all", func() bool { return a.Intake.Completeness().All() })
}

// What leads to a cluster that is dark, and that this node's disk has lost, stays.
func TestADarkClusterKeepsItsRoutes(t *testing.T) {
	k := newKernel("e1")
	a, end := begin(t, k, "", k.drivers())
	handle(t, a, snap("a", 1, []*relayv1.ClusterState{st("east", true, true), st("west", false, true)}, east(t, "east"), west(t)))
	await(t, "a route to west", func() bool { return len(k.routes.all()) > 0 })
	end()
	a, end = begin(t, k, "", k.drivers())
	defer end()
	handle(t, a, snap("b", 1, []*relayv1.ClusterState{st("east", true, true), st("west", false, false)}, east(t, "east")))
	await(t, "records applied", func() bool { return a.State().Applied.Revision == 1 && a.Synced().Settled })
	time.Sleep(200 * time.Millisecond)
	if len(k.routes.all()) == 0 {
		t.Error("the route to west went")
	}
	if _, ok := k.tunnel.get(publicKey("w1")); !ok {
		t.Error("the peer in west went")
	}
}

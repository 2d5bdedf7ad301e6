// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	meshpolicy "github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// engineNode is an agent whose planner is the real engine.
type engineNode struct {
	t      rapid.TB
	kernel *kernel
	tables *table.Tables
	loop   *apply.Loop
	engine *meshpolicy.Engine
	to     *Publisher
	held   map[uint32]uint32
	now    time.Time

	pods     map[uint32]map[string]string
	policies map[string]*meshpolicy.Model
}

func (n *engineNode) start() {
	n.tables = table.New()
	before, sw := New(n.tables, n.kernel.driver(), Closed)
	n.loop = apply.NewLoop(n.tables, append(before, sw)...)
	memory, err := Remember(context.Background(), n.kernel.driver())
	if err != nil {
		n.t.Fatal(err)
	}
	n.held = memory.Held()
	n.engine = meshpolicy.NewEngine(meshpolicy.Config{
		Cluster: "east", Remembered: memory.Remembered(),
		Limits: meshpolicy.Limits{Sets: 2048, Classes: 1000, Identities: 1000, Chunks: 1000, Subjects: 1000},
	})
	n.engine.SetCluster("east", map[string]string{})
	for id, l := range n.pods {
		n.engine.SetIdentity(id, l)
	}
	for key, m := range n.policies {
		n.engine.SetPolicy(key, m)
	}
	for _, id := range subjects {
		n.engine.SetSubject(identity.Of(1, uint16(id)), true)
	}
	n.to = NewPublisher(n.tables, sw, memory)
}

func (n *engineNode) settle() {
	for again := true; again; {
		d := n.engine.Step()
		again = d.Again
		n.to.Publish(FromDelta(d, n.held))
		for i := 0; !n.to.Ready(); i++ {
			if i > 8 {
				n.t.Fatal("a delta is not in force after eight passes")
			}
			n.to.Step()
			n.loop.Pass(context.Background(), n.now, func(string) bool { return true })
			n.now = n.now.Add(time.Minute)
			n.to.Step()
		}
	}
}

func model(t *rapid.T, name string) *meshpolicy.Model {
	peers := rapid.SampledFrom([]string{
		`{}`, `{"to":[{"podSelector":{"matchLabels":{"app":"a"}}}]}`, `{"to":[{"podSelector":{"matchLabels":{"app":"b"}}}],"ports":[{"protocol":"TCP","port":80}]}`,
		`{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}]}`, `{"to":[{"ipBlock":{"cidr":"10.1.0.0/16"}}]}`,
	})
	spec := fmt.Sprintf(`{"podSelector":{"matchLabels":{"app":%q}},"policyTypes":["Egress"],"egress":[%s,%s]}`,
		rapid.SampledFrom([]string{"a", "b"}).Draw(t, "subject"), peers.Draw(t, "peer"), peers.Draw(t, "peer"))
	return meshpolicy.Parse(&record.Policy{PolicyKind: "NetworkPolicy", Namespace: "ns", Name: name, Spec: []byte(spec)})
}

// What the engine plans comes out of the maps: each connection gets the verdict of a fresh kernel that was filled by a
// fresh engine at once.
func TestTheEnginesPlanIsInTheMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &engineNode{t: t, kernel: newKernel(), now: time.Unix(0, 0), pods: map[uint32]map[string]string{}, policies: map[string]*meshpolicy.Model{}}
		n.start()
		local := []uint32{identity.Of(1, 300), identity.Of(1, 301), identity.Of(1, 302)}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				id := rapid.SampledFrom(local).Draw(t, "id")
				labels := map[string]string{
					"app": rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "app"), identity.LabelCluster: "east", identity.LabelNamespace: "ns",
				}
				if _, had := n.pods[id]; had && rapid.Bool().Draw(t, "gone") {
					delete(n.pods, id)
					n.engine.SetIdentity(id, nil)
				} else if !had {
					n.pods[id] = labels
					n.engine.SetIdentity(id, labels)
				}
			case 1:
				n.start()
			default:
				name := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "policy")
				m := model(t, name)
				key := "NetworkPolicy/ns/" + name
				n.policies[key] = m
				n.engine.SetPolicy(key, m)
			}
			n.settle()
			fresh := &engineNode{t: t, kernel: newKernel(), now: time.Unix(0, 0), pods: n.pods, policies: n.policies}
			fresh.start()
			fresh.settle()
			for _, subject := range local[:2] {
				for _, port := range []uint16{80, 443} {
					for _, peer := range local {
						p := packet{subject: subject, peer: peer, port: port}
						if got, want := n.kernel.allows(p), fresh.kernel.allows(p); got != want {
							t.Fatalf("%+v: allowed %t, want %t\nmaps %s\nwant %s", p, got, want, n.kernel, fresh.kernel)
						}
					}
					for _, a := range []string{"10.1.2.3", "10.2.2.3", "192.0.2.1"} {
						p := packet{subject: subject, addr: netip.MustParseAddr(a), port: port}
						if got, want := n.kernel.allows(p), fresh.kernel.allows(p); got != want {
							t.Fatalf("%+v: allowed %t, want %t\nmaps %s\nwant %s", p, got, want, n.kernel, fresh.kernel)
						}
					}
				}
			}
			if len(n.kernel.groups.rows) != len(fresh.kernel.groups.rows) || len(n.kernel.blocks.rows) != len(fresh.kernel.blocks.rows) {
				t.Fatalf("rows are left over\nmaps %s\nwant %s", n.kernel, fresh.kernel)
			}
		}
	})
}

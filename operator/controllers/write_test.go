// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/ciliumv2"
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/operator/aggregate"
	"github.com/fairlead-mesh/fairlead/operator/export"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

// still is a federation in which nothing happens.
type still struct{}

func (still) Overview() federate.Overview { return federate.Overview{} }
func (still) Refused() map[string]string  { return nil }

type connected struct{}

func (connected) Status() federate.Status { return federate.Status{} }

// desk is a Status over an API that counts writes and refuses some.
type desk struct {
	*Status
	t    *testing.T
	kube client.Client

	mu      sync.Mutex
	written []string
	refuse  string // the name of objects that can't be written
}

func newDesk(t *testing.T, objects ...client.Object) *desk {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	d := &desk{t: t}
	d.kube = fake.NewClientBuilder().WithScheme(scheme).WithObjects(append(objects, mesh())...).
		WithStatusSubresource(&v1alpha1.ClusterMesh{}, &v1alpha1.MeshNetworkPolicy{}, &v1alpha1.ClusterMeshNetworkPolicy{}, &v1alpha1.PolicySource{}, &npav1alpha2.ClusterNetworkPolicy{}, &ciliumv2.CiliumNetworkPolicy{}).
		WithInterceptorFuncs(interceptor.Funcs{SubResourcePatch: d.patch}).Build()
	d.Status = NewStatus(StatusConfig{
		Client: d.kube, Connection: connected{}, Intake: still{}, Discoverer: still{}, Log: slog.New(slog.DiscardHandler),
	})
	return d
}

func (d *desk) patch(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.GetName() == d.refuse {
		return errors.New("no")
	}
	d.written = append(d.written, o.GetName())
	return c.SubResource(sub).Patch(ctx, o, p, opts...)
}

// pass writes once and gives what was written beside the ClusterMesh.
func (d *desk) pass() ([]string, error) {
	d.t.Helper()
	d.written = nil
	err := d.write(d.t.Context())
	var names []string
	for _, n := range d.written {
		if n != federate.MeshName {
			names = append(names, n)
		}
	}
	return names, err
}

func (d *desk) wantPass(what string, want int) []string {
	d.t.Helper()
	names, err := d.pass()
	if err != nil || len(names) != want {
		d.t.Errorf("%s: wrote %d (%.100v), %v; want %d", what, len(names), names, err, want)
	}
	return names
}

func policyObject(name string) *v1alpha1.MeshNetworkPolicy {
	return &v1alpha1.MeshNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid of " + name), Generation: 1}}
}

func policyKey(name string) string { return "east/policies/MeshNetworkPolicy/shop/" + name }

// exported is the record of a policy that the agents get.
func exported(name, revision string) export.Change { return exportedAs(policyObject(name), revision) }

func exportedAs(p *v1alpha1.MeshNetworkPolicy, revision string) export.Change {
	kind, _ := v1alpha1.PolicyKindOf(p)
	rec, err := export.PolicyRecord("east", export.PolicyOf(kind, p), record.Mode{}, &recordv1.Provenance{Revision: revision})
	if err != nil {
		panic(err)
	}
	return export.Change{Key: policyKey(p.Name), Record: rec}
}

// enforced is what an agent reports that has a policy's record in its kernel.
func enforced(c export.Change) v1alpha1.NodePolicy {
	o, err := record.Parse(c.Record)
	if err != nil {
		panic(err)
	}
	p := o.(*record.Policy)
	return v1alpha1.NodePolicy{Key: c.Key, Revision: p.Provenance.Revision, Content: p.Content()}
}

func reporting(node string, policies ...v1alpha1.NodePolicy) *v1alpha1.MeshNode {
	a := agent(node, 0)
	a.Status.Policies = policies
	return a
}

func (d *desk) policy(name string) *v1alpha1.MeshNetworkPolicy {
	d.t.Helper()
	p := &v1alpha1.MeshNetworkPolicy{}
	if err := d.kube.Get(d.t.Context(), client.ObjectKey{Namespace: "shop", Name: name}, p); err != nil {
		d.t.Fatal(err)
	}
	return p
}

func TestOnlyWhatChangedIsWritten(t *testing.T) {
	src := &v1alpha1.PolicySource{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "source"},
		Status: v1alpha1.PolicySourceStatus{LastAppliedRevision: "1", Inventory: []v1alpha1.InventoryEntry{
			{Kind: v1alpha1.KindMeshNetworkPolicy, Namespace: "shop", Name: "a"}, {Kind: v1alpha1.KindMeshNetworkPolicy, Namespace: "shop", Name: "b"},
		}},
	}
	d := newDesk(t, policyObject("a"), policyObject("b"), src)
	for _, name := range []string{"a", "b"} {
		d.ledger.touchPolicy(policyRef{v1alpha1.KindMeshNetworkPolicy, "shop", name})
	}
	d.ledger.setSource(aggregate.SourceName{Namespace: "shop", Name: "source"}, src)
	d.ledger.setNode("n1", true)
	d.wantPass("before anything was exported", 0)

	d.Changed(&mesh().Spec, export.Delta{Local: []export.Change{exported("a", "1"), exported("b", "1")}})
	d.wantPass("exported", 3)
	d.wantPass("nothing new", 0)

	at := func(name, revision string) v1alpha1.NodePolicy { return enforced(exported(name, revision)) }
	d.ledger.setAgent("n1", reporting("n1", at("a", "1")))
	d.wantPass("one policy in force", 1)
	d.ledger.setAgent("n1", reporting("n1", at("a", "1"), at("b", "1")))
	d.wantPass("the other too, and with it the source", 2)
	if st := d.policy("b").Status; st.Nodes.Realized != 1 || st.Nodes.Total != 1 || st.AppliedRevision != "1" {
		t.Errorf("status of b: %+v", st)
	}
	d.ledger.setNode("n2", true)
	d.wantPass("another node", 3)

	d.refuse = "a"
	d.ledger.setAgent("n2", reporting("n2", at("a", "1"), at("b", "1")))
	if names, err := d.pass(); err == nil || len(names) != 2 {
		t.Errorf("wrote %v, %v", names, err)
	}
	d.refuse = ""
	if names := d.wantPass("what was refused", 1); names[0] != "a" {
		t.Errorf("wrote %v", names)
	}
	d.wantPass("nothing new again", 0)
	if got := line(d.policy("a").Status.Conditions, "Ready"); got != "True Ready: in force on all 2 nodes" {
		t.Errorf("a is %s", got)
	}
}

// Flux marks what it applies in its own way. Agents report the revision that they were given, so that is what counts.
func TestAPolicyFromFluxBecomesReady(t *testing.T) {
	p := policyObject("a")
	p.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "policies", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
	d := newDesk(t, p)
	d.ledger.setNode("n1", true)
	d.Changed(&mesh().Spec, export.Delta{Local: []export.Change{exported("a", "main@sha1:1")}})
	d.ledger.setAgent("n1", reporting("n1", enforced(exported("a", "main@sha1:1"))))
	d.wantPass("in force", 1)
	st := d.policy("a").Status
	if got := line(st.Conditions, "Ready"); got != "True Ready: in force on all 1 nodes" || st.AppliedRevision != "main@sha1:1" {
		t.Errorf("%s, applied %q", got, st.AppliedRevision)
	}
}

// A policy is ready when what is written in the object is what every node says that it enforces. That a node has the
// revision of the repository says nothing of it: somebody may have edited the object since, or made it anew.
func TestAPolicyIsReadyByItsContent(t *testing.T) {
	object := func(uid string, generation int64, app string) *v1alpha1.MeshNetworkPolicy {
		p := policyObject("a")
		p.UID, p.Generation = types.UID(uid), generation
		p.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
		return p
	}
	first := object("u1", 1, "web")
	edited := object("u1", 2, "api")
	again := object("u2", 1, "web") // as the first was, but another object
	back := object("u1", 3, "web")  // edited back
	const (
		ready = "True Ready: in force on all 2 nodes"
		none  = "False Progressing: in force on 0 of 2 nodes"
		one   = "False Progressing: in force on 1 of 2 nodes"
	)
	for _, tt := range []struct {
		name        string
		now         *v1alpha1.MeshNetworkPolicy // in the API
		given       *v1alpha1.MeshNetworkPolicy // to agents; nil: none
		nodes       [2]*v1alpha1.MeshNetworkPolicy
		want        string
		wantApplied string
	}{
		{"in force", first, first, [2]*v1alpha1.MeshNetworkPolicy{first, first}, ready, "main@sha1:1"},
		{"edited at the same revision, and no agent was given it", edited, first, [2]*v1alpha1.MeshNetworkPolicy{first, first},
			"False Progressing: generation 2 is not with the agents yet", ""},
		{"edited at the same revision, and no agent has it", edited, edited, [2]*v1alpha1.MeshNetworkPolicy{first, first}, none, ""},
		{"an agent lags", edited, edited, [2]*v1alpha1.MeshNetworkPolicy{edited, first}, one, ""},
		{"an agent went back to what its disk held", edited, edited, [2]*v1alpha1.MeshNetworkPolicy{first, edited}, one, ""},
		{"the edit is in force", edited, edited, [2]*v1alpha1.MeshNetworkPolicy{edited, edited}, ready, "main@sha1:1"},
		{"edited back, and agents have not heard of either", back, back, [2]*v1alpha1.MeshNetworkPolicy{first, first}, none, ""},
		{"made again, and agents were given the one before", again, first, [2]*v1alpha1.MeshNetworkPolicy{first, first},
			"False Progressing: generation 1 is not with the agents yet", ""},
		{"made again, and agents have the one before", again, again, [2]*v1alpha1.MeshNetworkPolicy{first, first}, none, ""},
		{"made again, and one agent has it", again, again, [2]*v1alpha1.MeshNetworkPolicy{first, again}, one, ""},
		{"made again, and in force", again, again, [2]*v1alpha1.MeshNetworkPolicy{again, again}, ready, "main@sha1:1"},
		{"made again, while agents were only told of the deletion", again, nil, [2]*v1alpha1.MeshNetworkPolicy{first, first},
			"False Progressing: generation 1 is not with the agents yet", ""},
		{"an agent that reports nothing of it", first, first, [2]*v1alpha1.MeshNetworkPolicy{first, nil}, one, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, tt.now)
			d.Changed(&mesh().Spec, export.Delta{Local: []export.Change{exportedAs(first, "main@sha1:1")}})
			if tt.given == nil {
				d.Changed(&mesh().Spec, export.Delta{Local: []export.Change{{Key: policyKey("a")}}})
			} else {
				d.Changed(&mesh().Spec, export.Delta{Local: []export.Change{exportedAs(tt.given, "main@sha1:1")}})
			}
			for i, has := range tt.nodes {
				name := fmt.Sprintf("n%d", i)
				d.ledger.setNode(name, true)
				if has == nil {
					d.ledger.setAgent(name, reporting(name))
				} else {
					d.ledger.setAgent(name, reporting(name, enforced(exportedAs(has, "main@sha1:1"))))
				}
			}
			d.ledger.touchPolicy(policyRef{v1alpha1.KindMeshNetworkPolicy, "shop", "a"})
			d.wantPass("the policy", 1)
			st := d.policy("a").Status
			if got := line(st.Conditions, "Ready"); got != tt.want || st.AppliedRevision != tt.wantApplied || st.ObservedGeneration != tt.now.Generation {
				t.Errorf("%s, applied %q, observed %d", got, st.AppliedRevision, st.ObservedGeneration)
			}
			kstatusAgrees(t, st.Conditions)
		})
	}
}

func TestAPassIsBounded(t *testing.T) {
	var objects []client.Object
	var changes []export.Change
	for i := range policiesAPass + 1 {
		name := fmt.Sprintf("p%d", i)
		objects, changes = append(objects, policyObject(name)), append(changes, exported(name, "1"))
	}
	d := newDesk(t, objects...)
	d.Changed(&mesh().Spec, export.Delta{Local: changes})
	<-d.wake
	d.wantPass("first", policiesAPass)
	<-d.wake // or nobody would come for the rest
	d.wantPass("second", 1)
	d.wantPass("third", 0)
}

func TestKeysOfPolicies(t *testing.T) {
	for _, kind := range v1alpha1.PolicyKinds() {
		r := policyRef{kind.Name, "shop", "a.b"}
		if !kind.Namespaced {
			r.namespace = ""
		}
		key := r.key("east")
		if record.Kind(key) != record.KindPolicy || refOf(key) != r {
			t.Errorf("%+v has key %q, which names %+v", r, key, refOf(key))
		}
	}
}

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
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

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
		WithStatusSubresource(&v1alpha1.ClusterMesh{}, &v1alpha1.MeshNetworkPolicy{}, &v1alpha1.ClusterMeshNetworkPolicy{}, &v1alpha1.PolicySource{}, &npav1alpha2.ClusterNetworkPolicy{}).
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
	return &v1alpha1.MeshNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Generation: 1}}
}

func policyKey(name string) string { return "east/policies/MeshNetworkPolicy/shop/" + name }

// exported is the record of a policy that the agents get.
func exported(name, revision string) export.Change {
	return export.Change{Key: policyKey(name), Record: &recordv1.Record{Cluster: "east", Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
		Kind: v1alpha1.KindMeshNetworkPolicy, Namespace: "shop", Name: name, Generation: 1, Provenance: &recordv1.Provenance{Revision: revision},
	}}}}
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

	at := func(name, revision string) v1alpha1.NodePolicy {
		return v1alpha1.NodePolicy{Key: policyKey(name), Revision: revision, Digest: record.PolicyDigest(nil)}
	}
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
	d.ledger.setAgent("n1", reporting("n1", v1alpha1.NodePolicy{Key: policyKey("a"), Revision: "main@sha1:1", Digest: record.PolicyDigest(nil)}))
	d.wantPass("in force", 1)
	st := d.policy("a").Status
	if got := line(st.Conditions, "Ready"); got != "True Ready: in force on all 1 nodes" || st.AppliedRevision != "main@sha1:1" {
		t.Errorf("%s, applied %q", got, st.AppliedRevision)
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

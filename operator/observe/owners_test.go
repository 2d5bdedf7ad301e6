// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

const fluxObject = `
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {namespace: flux-system, name: apps, uid: u, resourceVersion: "7", annotations: {big: text}}
spec: {path: ./apps, interval: 1m}
status:
  lastAppliedRevision: main@sha1:1
  lastAttemptedRevision: main@sha1:2
  conditions: [{type: Ready, status: "True"}]
  inventory:
    entries:
    - {id: shop_web_networking.k8s.io_NetworkPolicy, v: v1}
    - {id: shop_web_fairlead.dev_MeshNetworkPolicy, v: v1alpha1}
    - {id: _base_fairlead.dev_ClusterMeshNetworkPolicy, v: v1alpha1}
    - {id: shop_api_apps_Deployment, v: v1}
    - {id: shop_web_else.io_NetworkPolicy, v: v1}
    - {id: _web_networking.k8s.io_NetworkPolicy, v: v1}
    - {id: nonsense, v: v1}
`

const helmObject = `
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata: {namespace: shop, name: web}
spec: {chart: {spec: {chart: web}}}
status:
  history: [{chartName: web, chartVersion: 1.2.0, status: deployed}, {chartName: web, chartVersion: 1.1.0}]
  inventory: {entries: [{id: shop_web_networking.k8s.io_NetworkPolicy, v: v1}]}
`

const argoObject = `
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {namespace: argocd, name: shop}
spec:
  destination: {server: "https://kubernetes.default.svc", namespace: shop}
  source: {repoURL: "https://git/apps", path: shop, targetRevision: main}
status:
  sync: {status: OutOfSync, revision: 0123abc}
  history: [{id: 1, revision: 0000000}]
  resources:
  - {group: networking.k8s.io, version: v1, kind: NetworkPolicy, namespace: shop, name: web, status: Synced}
  - {group: networking.k8s.io, version: v1, kind: NetworkPolicy, namespace: shop, name: edited, status: OutOfSync}
  - {version: v1, kind: Service, namespace: shop, name: web, status: Synced}
`

func object(t *testing.T, text string, change ...func(map[string]any)) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(u.Object)
	}
	return u
}

func set(t *testing.T, value any, path ...string) func(map[string]any) {
	return func(o map[string]any) {
		if err := unstructured.SetNestedField(o, value, path...); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOwnersSayWhatTheyApplied(t *testing.T) {
	policy := func(kind, namespace, name string) export.PolicyName {
		return export.PolicyName{Kind: kind, Namespace: namespace, Name: name}
	}
	type list = map[export.PolicyName]export.Applied
	web := policy(v1alpha1.KindNetworkPolicy, "shop", "web")
	remote := set(t, map[string]any{"secretRef": map[string]any{"name": "elsewhere"}}, "spec", "kubeConfig")
	for _, tt := range []struct {
		name string
		u    *unstructured.Unstructured
		want *export.Owner
	}{
		{"Kustomization", object(t, fluxObject), &export.Owner{Revision: "main@sha1:1", Path: "./apps", Policies: list{
			web: {}, policy(v1alpha1.KindMeshNetworkPolicy, "shop", "web"): {}, policy(v1alpha1.KindClusterMeshNetworkPolicy, "", "base"): {},
		}}},
		{"Kustomization for another cluster", object(t, fluxObject, remote), nil},
		{"Kustomization without an inventory", object(t, fluxObject, set(t, nil, "status", "inventory")), nil},
		{"Kustomization with another form of inventory", object(t, fluxObject, set(t, []any{"a", map[string]any{"id": true}}, "status", "inventory", "entries")), nil},
		{"HelmRelease", object(t, helmObject), &export.Owner{Revision: "web@1.2.0", Policies: list{web: {}}}},
		{"HelmRelease for another cluster", object(t, helmObject, remote), nil},
		{"HelmRelease that keeps no inventory", object(t, helmObject, set(t, nil, "status", "inventory")), nil},
		{"Application", object(t, argoObject), &export.Owner{URL: "https://git/apps", Path: "shop", Revision: "0123abc", Policies: list{web: {}}}},
		{"Application in this cluster by name", object(t, argoObject, set(t, map[string]any{"name": "in-cluster"}, "spec", "destination")),
			&export.Owner{URL: "https://git/apps", Path: "shop", Revision: "0123abc", Policies: list{web: {}}}},
		{"Application for another cluster", object(t, argoObject, set(t, "https://192.0.2.1:6443", "spec", "destination", "server")), nil},
		{"Application for another cluster by name", object(t, argoObject, set(t, map[string]any{"name": "west"}, "spec", "destination")), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := slices.IndexFunc(ownerKinds, func(k ownerKind) bool { return k.gvk == tt.u.GroupVersionKind() })
			if diff := cmp.Diff(tt.want, ownerKinds[i].read(tt.u)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			// The cache keeps what is read, and little else.
			if _, err := Strip(tt.u); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, ownerKinds[i].read(tt.u)); diff != "" {
				t.Errorf("of the stripped object, -want +got:\n%s", diff)
			}
			if _, found, _ := unstructured.NestedFieldNoCopy(tt.u.Object, "status", "conditions"); found || tt.u.GetAnnotations() != nil {
				t.Errorf("still there: %v", tt.u.Object)
			}
		})
	}
}

func FuzzOwners(f *testing.F) {
	for i, text := range []string{fluxObject, helmObject, argoObject} {
		f.Add(text, uint8(i))
	}
	f.Fuzz(func(t *testing.T, text string, kind uint8) {
		u := &unstructured.Unstructured{}
		if yaml.Unmarshal([]byte(text), &u.Object) != nil || u.Object == nil {
			t.Skip()
		}
		k := ownerKinds[int(kind)%len(ownerKinds)]
		if o := k.read(u); o != nil && len(o.Policies) == 0 {
			t.Errorf("an owner of nothing: %+v", o)
		}
	})
}

// kindsCache is a cache for the kinds that a cluster has: that of Kustomizations comes later.
type kindsCache struct {
	ctrlcache.Cache
	has   bool
	asked int
	flux  *registered
}

// registered is an informer that holds its handlers.
type registered struct {
	ctrlcache.Informer
	handlers []cache.ResourceEventHandler
}

func (r *registered) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	r.handlers = append(r.handlers, h)
	return nothingYet{}, nil
}

type nothingYet struct {
	cache.ResourceEventHandlerRegistration
}

func (nothingYet) HasSynced() bool { return true }

func (c *kindsCache) GetInformer(_ context.Context, o client.Object, _ ...ctrlcache.InformerGetOption) (ctrlcache.Informer, error) {
	c.asked++
	gvk := o.GetObjectKind().GroupVersionKind()
	if !c.has || gvk.Kind != export.OwnerKustomization {
		return nil, &meta.NoKindMatchError{GroupKind: gvk.GroupKind(), SearchedVersions: []string{gvk.Version}}
	}
	return c.flux, nil
}

// Without the CRDs of Flux and Argo CD their marks prove nothing. When one comes, its owners count; and what policies claim makes
// no request at all.
func TestOwnersWhoseKindComesLater(t *testing.T) {
	c := &kindsCache{flux: &registered{}}
	o, sink := New(c, "test", slog.New(slog.DiscardHandler)), &counted{}
	o.AddSinks(sink)
	provenance := func() string {
		t.Helper()
		o.flush()
		for _, d := range slices.Backward(sink.deltas) {
			for _, change := range d.Local {
				if change.Key == "east/policies/MeshNetworkPolicy/shop/web" {
					return change.Record.GetPolicy().GetProvenance().GetSource()
				}
			}
		}
		return "no record"
	}
	o.change(func(s *export.State) {
		o.mesh = &v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"}}
		s.SetMesh(o.mesh)
		for _, name := range []string{"web", "forged"} {
			p := &v1alpha1.MeshNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{
				"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
			}}}
			kind, _ := v1alpha1.PolicyKindOf(p)
			s.SetPolicy(export.PolicyOf(kind, p))
		}
	})
	ready, missing := o.followOwners(t.Context(), ownerKinds)
	if len(ready) != 0 || len(missing) != len(ownerKinds) || provenance() != "" {
		t.Errorf("without CRDs: %d kinds followed, %d missing, provenance %q", len(ready), len(missing), provenance())
	}
	c.has = true
	ready, missing = o.followOwners(t.Context(), missing)
	if len(ready) != 1 || len(missing) != len(ownerKinds)-1 || len(c.flux.handlers) != 1 {
		t.Fatalf("with Flux: %d kinds followed, %d missing", len(ready), len(missing))
	}
	asked, flux := c.asked, object(t, fluxObject)
	c.flux.handlers[0].OnAdd(flux, true)
	if got := provenance(); got != "Kustomization/flux-system/apps" {
		t.Errorf("provenance %q", got)
	}
	was := len(sink.deltas)
	c.flux.handlers[0].OnUpdate(flux, object(t, fluxObject, set(t, "now", "status", "lastHandledReconcileAt")))
	o.flush()
	if len(sink.deltas) != was {
		t.Errorf("a reconciliation that changed nothing: %+v", sink.deltas[was:])
	}
	c.flux.handlers[0].OnDelete(flux)
	if got := provenance(); got != "" {
		t.Errorf("provenance %q of a Kustomization that is gone", got)
	}
	if c.asked != asked {
		t.Errorf("%d requests for what policies claim", c.asked-asked)
	}
}

// Most changes of a PolicySource's status are about nodes.
func TestASourceIsReadWhenItsInventoryChanges(t *testing.T) {
	o := New(nil, "test", slog.New(slog.DiscardHandler))
	src := &v1alpha1.PolicySource{ObjectMeta: metav1.ObjectMeta{Namespace: "fairlead-system", Name: "policies"}, Status: v1alpha1.PolicySourceStatus{
		InventoryRevision: "1", Inventory: []v1alpha1.InventoryEntry{{Kind: v1alpha1.KindMeshNetworkPolicy, Namespace: "shop", Name: "web", Path: "web.yaml", UID: "u", Content: "x"}},
	}}
	h := o.sourceHandler()
	h.OnAdd(src, true)
	wakes := func(change func(*v1alpha1.PolicySource)) bool {
		o.synced = true
		next := src.DeepCopy()
		change(next)
		h.OnUpdate(src, next)
		src = next
		select {
		case <-o.wake:
			return true
		default:
			return false
		}
	}
	for what, step := range map[string]struct {
		change func(*v1alpha1.PolicySource)
		want   bool
	}{
		"nodes":    {func(s *v1alpha1.PolicySource) { s.Status.Nodes.Realized++ }, false},
		"a commit": {func(s *v1alpha1.PolicySource) { s.Status.InventoryRevision = "2" }, true},
		"an entry": {func(s *v1alpha1.PolicySource) { s.Status.Inventory[0].Content = "y" }, true},
	} {
		if got := wakes(step.change); got != step.want {
			t.Errorf("%s: read %t, want %t", what, got, step.want)
		}
	}
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// Owners of policies that aren't ours. They are read without their Go types, for their CRDs may be missing or come later. Each
// says in its status what it applied: only that counts, see export.State.
//
// +kubebuilder:rbac:groups=kustomize.toolkit.fluxcd.io,resources=kustomizations,verbs=get;list;watch
// +kubebuilder:rbac:groups=helm.toolkit.fluxcd.io,resources=helmreleases,verbs=get;list;watch
// +kubebuilder:rbac:groups=argoproj.io,resources=applications,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairlead.dev,resources=policysources,verbs=get;list;watch
type ownerKind struct {
	gvk  schema.GroupVersionKind
	read func(*unstructured.Unstructured) *export.Owner
	// keep are the fields that read looks at: objects of these kinds are large.
	keep []string
}

var ownerKinds = []ownerKind{
	{schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: export.OwnerKustomization}, kustomization,
		[]string{"spec.path", "spec.kubeConfig", "status.lastAppliedRevision", "status.inventory"}},
	{schema.GroupVersionKind{Group: "helm.toolkit.fluxcd.io", Version: "v2", Kind: export.OwnerHelmRelease}, helmRelease,
		[]string{"spec.kubeConfig", "status.history", "status.inventory"}},
	{schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: export.OwnerApplication}, application,
		[]string{"spec.destination", "spec.source", "status.resources", "status.sync.revision"}},
}

// policySource reads what a PolicySource applied. An entry of an operator that didn't write down contents proves nothing.
func policySource(src *v1alpha1.PolicySource) *export.Owner {
	st := &src.Status
	o := &export.Owner{URL: st.InventoryURL, Revision: st.InventoryRevision, Policies: make(map[export.PolicyName]export.Applied, len(st.Inventory))}
	for _, e := range st.Inventory {
		o.Policies[export.PolicyName{Kind: e.Kind, Namespace: e.Namespace, Name: e.Name}] = export.Applied{Path: e.Path, Content: e.Content, UID: e.UID}
	}
	return o
}

// sameInventory says whether two states of a PolicySource prove the same. Most changes of its status are about nodes.
func sameInventory(a, b *v1alpha1.PolicySource) bool {
	return a.Status.InventoryRevision == b.Status.InventoryRevision && a.Status.InventoryURL == b.Status.InventoryURL &&
		slices.Equal(a.Status.Inventory, b.Status.Inventory)
}

// kustomization reads a Flux Kustomization. One that applies to another cluster applied nothing here.
func kustomization(u *unstructured.Unstructured) *export.Owner {
	if _, remote, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "kubeConfig"); remote {
		return nil
	}
	o := &export.Owner{Revision: text(u.Object, "status", "lastAppliedRevision"), Path: text(u.Object, "spec", "path"), Policies: fluxInventory(u)}
	return applying(o)
}

// helmRelease reads a Flux HelmRelease. Those of controllers that keep no inventory confirm nothing.
func helmRelease(u *unstructured.Unstructured) *export.Owner {
	if _, remote, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "kubeConfig"); remote {
		return nil
	}
	o := &export.Owner{Policies: fluxInventory(u)}
	// The newest release is first.
	if newest := items(u.Object, "status", "history"); len(newest) > 0 {
		o.Revision = text(newest[0], "chartName") + "@" + text(newest[0], "chartVersion")
	}
	return applying(o)
}

// fluxInventory reads an inventory, in which an object is named <namespace>_<name>_<group>_<kind>.
func fluxInventory(u *unstructured.Unstructured) map[export.PolicyName]export.Applied {
	out := map[export.PolicyName]export.Applied{}
	for _, e := range items(u.Object, "status", "inventory", "entries") {
		if parts := strings.Split(text(e, "id"), "_"); len(parts) == 4 {
			add(out, parts[2], parts[3], parts[0], parts[1])
		}
	}
	return out
}

// application reads an Argo CD Application. An object that differs from what the repository says isn't from there as it is.
func application(u *unstructured.Unstructured) *export.Owner {
	if !here(u) {
		return nil
	}
	o := &export.Owner{
		URL: text(u.Object, "spec", "source", "repoURL"), Path: text(u.Object, "spec", "source", "path"),
		Revision: text(u.Object, "status", "sync", "revision"), Policies: map[export.PolicyName]export.Applied{},
	}
	for _, r := range items(u.Object, "status", "resources") {
		if text(r, "status") == "Synced" {
			add(o.Policies, text(r, "group"), text(r, "kind"), text(r, "namespace"), text(r, "name"))
		}
	}
	return applying(o)
}

// here says whether an Application applies to the cluster that it lies in.
func here(u *unstructured.Unstructured) bool {
	server, name := text(u.Object, "spec", "destination", "server"), text(u.Object, "spec", "destination", "name")
	return strings.TrimSuffix(cmp.Or(server, "-"), "/") == "https://kubernetes.default.svc" || server == "" && name == "in-cluster"
}

// applying is an owner, nil if it applied no policy: most applied something else.
func applying(o *export.Owner) *export.Owner {
	if len(o.Policies) == 0 {
		return nil
	}
	return o
}

func add(to map[export.PolicyName]export.Applied, group, kind, namespace, name string) {
	if k, known := v1alpha1.PolicyKindNamed(kind); known && k.GroupVersion.Group == group && (namespace != "") == k.Namespaced {
		to[export.PolicyName{Kind: kind, Namespace: namespace, Name: name}] = export.Applied{}
	}
}

// text reads a string; empty if there is none.
func text(o map[string]any, path ...string) string {
	s, _, _ := unstructured.NestedString(o, path...)
	return s
}

// items reads a list of objects, without what isn't an object.
func items(o map[string]any, path ...string) []map[string]any {
	field, _, _ := unstructured.NestedFieldNoCopy(o, path...)
	list, _ := field.([]any)
	out := make([]map[string]any, 0, len(list))
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

// stripOwner leaves of an owner what is read of it.
func stripOwner(u *unstructured.Unstructured) {
	i := slices.IndexFunc(ownerKinds, func(k ownerKind) bool { return k.gvk == u.GroupVersionKind() })
	if i < 0 {
		return
	}
	kept := &unstructured.Unstructured{Object: map[string]any{}}
	kept.SetGroupVersionKind(u.GroupVersionKind())
	kept.SetNamespace(u.GetNamespace())
	kept.SetName(u.GetName())
	kept.SetUID(u.GetUID())
	kept.SetResourceVersion(u.GetResourceVersion())
	for _, field := range ownerKinds[i].keep {
		path := strings.Split(field, ".")
		if v, found, err := unstructured.NestedFieldNoCopy(u.Object, path...); found && err == nil {
			// Fields of an object that the API gave can be set in one that has none.
			_ = unstructured.SetNestedField(kept.Object, v, path...)
		}
	}
	u.Object = kept.Object
}

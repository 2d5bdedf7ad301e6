// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

var kustomizations = schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"}

// provenance says where a policy came from: the revision that nodes report of this very state, which the operator had from the
// owner, and the source if that lists the policy itself. Labels and annotations only say where to look: who may write the
// policy may write them too. Of other owners than PolicySources and Kustomizations only the revision is known here.
func (r reading) provenance(ctx context.Context, kind v1alpha1.PolicyKind, o v1alpha1.PolicyObject, rec *record.Policy) record.Provenance {
	from := record.Provenance{Revision: r.reportedRevision(rec)}
	if from.Revision == "" {
		return from // applied by hand, or not with the nodes yet
	}
	labels := o.GetLabels()
	if key := (client.ObjectKey{Namespace: labels[v1alpha1.LabelSourceNamespace], Name: labels[v1alpha1.LabelSourceName]}); key.Name != "" {
		src := &v1alpha1.PolicySource{}
		if r.Get(ctx, key, src) == nil {
			r.fromSource(&from, src, kind, rec)
		}
	} else if key := (client.ObjectKey{Namespace: labels[kustomizations.Group+"/namespace"], Name: labels[kustomizations.Group+"/name"]}); key.Name != "" {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(kustomizations)
		if r.Get(ctx, key, u) == nil {
			fromKustomization(&from, u, kind, rec)
		}
	}
	return from
}

// reportedRevision is the revision with which a node has a policy in the state that the API has; empty if none does.
func (r reading) reportedRevision(rec *record.Policy) string {
	key, content := policy.Key(rec), rec.Content()
	for _, node := range r.out.Nodes {
		if e := node.Enforces[key]; e.Content == content && e.Revision != "" {
			return e.Revision
		}
	}
	return ""
}

func (r reading) fromSource(from *record.Provenance, src *v1alpha1.PolicySource, kind v1alpha1.PolicyKind, rec *record.Policy) {
	for _, e := range src.Status.Inventory {
		if e.Kind == kind.Name && e.Namespace == rec.Namespace && e.Name == rec.Name && e.UID == rec.UID && e.Content == record.SpecContent(rec.Spec) {
			from.Source, from.URL, from.Path = src.Namespace+"/"+src.Name, src.Status.InventoryURL, e.Path
			return
		}
	}
}

// fromKustomization reads Flux's inventory, in which an object is named <namespace>_<name>_<group>_<kind>.
func fromKustomization(from *record.Provenance, u *unstructured.Unstructured, kind v1alpha1.PolicyKind, rec *record.Policy) {
	id := rec.Namespace + "_" + rec.Name + "_" + kind.GroupVersion.Group + "_" + kind.Name
	field, _, _ := unstructured.NestedFieldNoCopy(u.Object, "status", "inventory", "entries")
	entries, _ := field.([]any)
	listed := slices.ContainsFunc(entries, func(e any) bool {
		m, is := e.(map[string]any)
		return is && m["id"] == id
	})
	if listed {
		from.Source = kustomizations.Kind + "/" + u.GetNamespace() + "/" + u.GetName()
		from.Path, _, _ = unstructured.NestedString(u.Object, "spec", "path")
	}
}

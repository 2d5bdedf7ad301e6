// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"cmp"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Plan is what has to happen in the cluster for a tree to be in force.
type Plan struct {
	Apply     []Object
	Prune     []v1alpha1.InventoryEntry
	Inventory []v1alpha1.InventoryEntry // after the plan was carried out
	Union     []v1alpha1.InventoryEntry // while it is carried out: everything that may be there
}

// MakePlan marks objects with where they came from and compares them with what was applied before.
func MakePlan(src *v1alpha1.PolicySource, tree *Tree, objects []Object) Plan {
	var p Plan
	now := map[string]bool{}
	for _, o := range objects {
		marked := Object{Unstructured: o.DeepCopy(), Path: o.Path, Line: o.Line}
		markOrigin(marked, src, tree)
		p.Apply = append(p.Apply, marked)
		now[o.ref()] = true
		p.Inventory = append(p.Inventory, entryOf(o))
	}
	p.Union = merged(p.Inventory, src.Status.Inventory)
	for _, e := range src.Status.Inventory {
		if src.Spec.Prune && !now[refOf(e.Kind, e.Namespace, e.Name)] {
			p.Prune = append(p.Prune, e)
		}
	}
	sortInventory(p.Inventory)
	return p
}

func markOrigin(o Object, src *v1alpha1.PolicySource, tree *Tree) {
	annotations, labels := o.GetAnnotations(), o.GetLabels()
	if annotations == nil {
		annotations = map[string]string{}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	annotations[v1alpha1.AnnotationSourceURL] = tree.URL
	annotations[v1alpha1.AnnotationSourceRevision] = tree.Revision
	annotations[v1alpha1.AnnotationSourcePath] = o.Path
	labels[v1alpha1.LabelSourceName] = src.Name
	labels[v1alpha1.LabelSourceNamespace] = src.Namespace
	o.SetAnnotations(annotations)
	o.SetLabels(labels)
}

func sortProblems(problems []Problem) {
	slices.SortFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"cmp"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// An inventory says of each policy which object this source applied and what it said, so that everybody else can tell a policy of
// this source from one that only bears its labels. It is written before the policies, with what they will say, and after them
// again, with the UIDs of those that were new.

// proven are entries with what is known of the objects; entries of objects that nothing is known of prove nothing.
func proven(entries []v1alpha1.InventoryEntry, known *prints) []v1alpha1.InventoryEntry {
	out := slices.Clone(entries)
	for i := range out {
		is := known.states[refOf(out[i].Kind, out[i].Namespace, out[i].Name)]
		out[i].UID, out[i].Content = is.uid, is.content
	}
	return out
}

// merged are entries, and of those of an inventory the ones beside them.
func merged(entries, inventory []v1alpha1.InventoryEntry) []v1alpha1.InventoryEntry {
	have := map[string]bool{}
	for _, e := range entries {
		have[refOf(e.Kind, e.Namespace, e.Name)] = true
	}
	out := slices.Clone(entries)
	for _, e := range inventory {
		if !have[refOf(e.Kind, e.Namespace, e.Name)] {
			out = append(out, e)
		}
	}
	sortInventory(out)
	return out
}

func entryOf(o Object) v1alpha1.InventoryEntry {
	return v1alpha1.InventoryEntry{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName(), Path: o.Path}
}

func sortInventory(entries []v1alpha1.InventoryEntry) {
	slices.SortFunc(entries, compareEntries)
}

func compareEntries(a, b v1alpha1.InventoryEntry) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// uidsOf gives the objects that an inventory names, by ref.
func uidsOf(inventory []v1alpha1.InventoryEntry) map[string]string {
	out := make(map[string]string, len(inventory))
	for _, e := range inventory {
		out[refOf(e.Kind, e.Namespace, e.Name)] = e.UID
	}
	return out
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNumbers(t *testing.T) {
	n := Of(7, 300)
	if n != 7<<16|300 || ClusterOf(n) != 7 || LocalOf(n) != 300 {
		t.Errorf("Of(7, 300) = %d, cluster %d, local %d", n, ClusterOf(n), LocalOf(n))
	}
	for n, want := range map[Number]string{
		Unknown: "unknown", Host: "host", World: "world", RemoteNode: "remote-node", CIDRBit | 3: "cidr:3", n: "7:300",
	} {
		if got := Name(n); got != want {
			t.Errorf("Name(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[Number]bool{
		Unknown: false, World: false, 255: false, 256: false, Of(1, 255): false, Of(1, 256): true, Of(255, 65535): true, CIDRBit | 1<<16 | 256: false,
	} {
		if got := IsPod(n); got != want {
			t.Errorf("IsPod(%d) = %t, want %t", n, got, want)
		}
	}
	if ClusterOf(CIDRBit|Of(9, 300)) != 0 {
		t.Error("a CIDR belongs to a cluster")
	}
}

func TestPodLabels(t *testing.T) {
	got := PodLabels("east", "shop", "", map[string]string{
		"app":                                      "web",
		"fairlead.dev/cluster":                     "west",
		"fairlead.dev/namespace":                   "kube-system",
		"fairlead.dev/anything":                    "x",
		"namespace.fairlead.dev/team":              "admins",
		"deep.namespace.fairlead.dev/team":         "admins",
		"notfairlead.dev/team":                     "mine",
		"fairlead.dev":                             "no domain",
		"pod-template-hash":                        "5d8f",
		"controller-revision-hash":                 "1",
		"statefulset.kubernetes.io/pod-name":       "web-0",
		"apps.kubernetes.io/pod-index":             "0",
		"batch.kubernetes.io/controller-uid":       "u",
		"batch.kubernetes.io/job-name":             "migrate",
		"controller-uid":                           "u",
		"pod-template-generation":                  "3",
		"batch.kubernetes.io/job-completion-index": "4",
	}, map[string]string{"team": "sales", "kubernetes.io/metadata.name": "forged"})
	want := map[string]string{
		"app":                          "web",
		"notfairlead.dev/team":         "mine",
		"fairlead.dev":                 "no domain",
		"batch.kubernetes.io/job-name": "migrate",
		"fairlead.dev/cluster":         "east",
		"fairlead.dev/namespace":       "shop",
		"fairlead.dev/service-account": "default",
		"namespace.fairlead.dev/team":  "sales",
		"namespace.fairlead.dev/kubernetes.io/metadata.name": "shop",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if sa := PodLabels("east", "shop", "robot", nil, nil)[LabelServiceAccount]; sa != "robot" {
		t.Errorf("service account is %q", sa)
	}
}

// Whatever labels a pod carries, nobody else's cluster, namespace or service account comes out.
func TestNobodyForgesOwnLabels(t *testing.T) {
	keys := rapid.SampledFrom([]string{LabelCluster, LabelNamespace, LabelServiceAccount, LabelNamespacePrefix + "a",
		LabelNamespacePrefix + "kubernetes.io/metadata.name", "app", "x.fairlead.dev/y"})
	rapid.Check(t, func(t *rapid.T) {
		pod := rapid.MapOf(rapid.OneOf(keys, rapid.String()), rapid.String()).Draw(t, "pod")
		namespace := rapid.MapOf(rapid.SampledFrom([]string{"a", "b"}), rapid.String()).Draw(t, "namespace")
		got := PodLabels("c", "n", "s", pod, namespace)
		bare := PodLabels("c", "n", "s", nil, namespace)
		for k, v := range got {
			if strings.Contains(k, "fairlead.dev/") && isOwn(k) && bare[k] != v {
				t.Fatalf("the pod's labels %v made %s=%s", pod, k, v)
			}
		}
	})
}

func TestExcludedLabelsSayWhy(t *testing.T) {
	for _, k := range ExcludedKeys() {
		if why, is := Excluded(k); !is || !strings.Contains(why, "identity") {
			t.Errorf("%s: %q, %t", k, why, is)
		}
	}
}

func TestTheDocumentationListsExcludedLabels(t *testing.T) {
	text, err := os.ReadFile("../../docs/concepts/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range ExcludedKeys() {
		if !strings.Contains(string(text), "`"+k+"`") {
			t.Errorf("docs/concepts/identity.md doesn't list %s", k)
		}
	}
}

// Excluded are exactly the labels that a pod has and its identity hasn't as the pod has them.
func TestExcludedAreTheLabelsThatIdentitiesLeaveOut(t *testing.T) {
	for _, k := range append(ExcludedKeys(), "app", "fairlead.dev", "xfairlead.dev/a", "fairlead.dev/team", "sub.fairlead.dev/team") {
		_, is := Excluded(k)
		if _, has := PodLabels("c", "n", "s", map[string]string{k: "v"}, nil)[k]; is == has {
			t.Errorf("%s: excluded %t, part of an identity %t", k, is, has)
		}
	}
	for k := range PodLabels("c", "n", "s", map[string]string{"app": "web"}, map[string]string{"team": "red"}) {
		if _, is := Excluded(k); is {
			t.Errorf("%s is excluded, and identities have it", k)
		}
	}
}

func TestCanonicalTellsSetsApart(t *testing.T) {
	tricky := rapid.StringOfN(rapid.RuneFrom([]rune{'a', '=', ';', '\\'}), 0, 4, -1)
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.MapOfN(tricky, tricky, 0, 3).Draw(t, "a")
		b := rapid.MapOfN(tricky, tricky, 0, 3).Draw(t, "b")
		if (Canonical(a) == Canonical(b)) != maps.Equal(a, b) {
			t.Fatalf("%q and %q: %s and %s", a, b, Canonical(a), Canonical(b))
		}
	})
}

func TestAllocate(t *testing.T) {
	set := func(v string) map[string]string { return map[string]string{"app": v} }
	have := map[uint32]map[string]string{
		Of(3, 256): set("a"), Of(3, 258): set("b"), Of(3, 400): set("a"), // two leaders gave "a" a number
		Of(4, 257): set("c"), 12: set("d"), CIDRBit | Of(3, 259): set("e"), // none of this cluster's
	}
	got, err := Allocate(3, have, []map[string]string{set("z"), set("b"), set("c"), set("a"), set("z")})
	if err != nil {
		t.Fatal(err)
	}
	want := []Allocation{ // new ones in the order of their labels: c before z
		{Of(3, 259), set("z"), true}, {Of(3, 258), set("b"), false}, {Of(3, 257), set("c"), true},
		{Of(3, 256), set("a"), false}, {Of(3, 259), set("z"), true},
	}
	for i := range want {
		if got[i].ID != want[i].ID || got[i].New != want[i].New || !maps.Equal(got[i].Labels, want[i].Labels) {
			t.Errorf("%d: got %+v, want %+v", i, got[i], want[i])
		}
	}
	if _, err := Allocate(0, nil, nil); err == nil {
		t.Error("cluster 0 can allocate")
	}
}

func TestAllocateExhausted(t *testing.T) {
	have := map[uint32]map[string]string{}
	for n := FirstLocal; n <= LastLocal; n++ {
		if n != 1000 {
			have[Of(1, uint16(n))] = map[string]string{"n": fmt.Sprint(n)}
		}
	}
	got, err := Allocate(1, have, []map[string]string{{"n": "x"}, {"n": "y"}, {"n": "300"}, {"n": "z"}})
	var exhausted *ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.Missing != 2 || exhausted.InUse != 65280 {
		t.Fatalf("error is %v", err)
	}
	if got[0].ID != Of(1, 1000) || got[1].ID != Unknown || got[2].ID != Of(1, 300) || got[3].ID != Unknown {
		t.Errorf("got %+v", got)
	}
	if !strings.Contains(err.Error(), "2 label sets") {
		t.Errorf("error does not say how many: %v", err)
	}
}

// Two operators that see the same agree, numbers are unique, and what has a number keeps it.
func TestAllocateIsStable(t *testing.T) {
	labels := rapid.MapOfN(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"1", "2", "3"}), 0, 2)
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(labels).Draw(t, "want")
		have := map[uint32]map[string]string{}
		first, err := Allocate(1, have, want)
		if err != nil {
			t.Fatal(err)
		}
		numbers := map[string]Number{}
		for _, a := range first {
			have[a.ID] = a.Labels
			numbers[Canonical(a.Labels)] = a.ID
		}
		if len(have) != len(numbers) {
			t.Fatalf("%d numbers for %d label sets", len(have), len(numbers))
		}
		more := append(slices.Clone(want), rapid.SliceOf(labels).Draw(t, "more")...)
		again, err := Allocate(1, have, rapid.Permutation(more).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range again {
			if n, had := numbers[Canonical(a.Labels)]; had == a.New || (had && n != a.ID) {
				t.Fatalf("%v had %d and got %+v", a.Labels, n, a)
			}
		}
		other, _ := Allocate(1, nil, rapid.Permutation(want).Draw(t, "other order"))
		for _, a := range other {
			if numbers[Canonical(a.Labels)] != a.ID {
				t.Fatalf("another order gives %v number %d, was %d", a.Labels, a.ID, numbers[Canonical(a.Labels)])
			}
		}
	})
}

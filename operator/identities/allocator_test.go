// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package identities

import (
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// pods is a Source.
type pods struct {
	mu    sync.Mutex
	want  []map[string]string
	have  map[uint32]map[string]string
	inUse map[uint32]bool
}

func (p *pods) Unnumbered() []map[string]string          { return p.want }
func (p *pods) Identities() map[uint32]map[string]string { return maps.Clone(p.have) }
func (p *pods) InUse(n uint32) bool                      { return p.inUse[n] }
func (p *pods) Learn(n uint32, l map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[n] = l
}

func newAllocator(t *testing.T, p *pods) (*Allocator, client.Client) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	kube := fake.NewClientBuilder().WithScheme(scheme).Build()
	return New(kube, p, slog.New(slog.DiscardHandler)), kube
}

func stored(t *testing.T, kube client.Client) map[string]string {
	t.Helper()
	var list v1alpha1.MeshIdentityList
	if err := kube.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, mi := range list.Items {
		out[mi.Name] = mi.Spec.Labels["app"]
	}
	return out
}

func TestAllocate(t *testing.T) {
	p := &pods{have: map[uint32]map[string]string{}, want: []map[string]string{{"app": "a"}, {"app": "b"}, {"app": "a"}}}
	a, kube := newAllocator(t, p)
	if err := a.Allocate(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	got := stored(t, kube)
	if len(got) != 2 || got["131328"] == got["131329"] || got["131328"] == "" || got["131329"] == "" {
		t.Errorf("stored: %v", got)
	}
	if len(p.have) != 2 {
		t.Errorf("learned: %v", p.have)
	}
	// Another leader was faster with the next number: it is not overwritten, and the next try takes another.
	if err := kube.Create(t.Context(), &v1alpha1.MeshIdentity{ObjectMeta: metav1.ObjectMeta{Name: "131330"}, Spec: v1alpha1.MeshIdentitySpec{Labels: map[string]string{"app": "x"}}}); err != nil {
		t.Fatal(err)
	}
	p.want = []map[string]string{{"app": "c"}}
	if err := a.Allocate(t.Context(), 2); err == nil {
		t.Error("a taken number was used")
	}
	p.have[131330] = map[string]string{"app": "x"} // the watch brings it
	if err := a.Allocate(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, kube); got["131331"] != "c" || got["131330"] != "x" {
		t.Errorf("stored: %v", got)
	}
}

func TestCollect(t *testing.T) {
	p := &pods{have: map[uint32]map[string]string{}, inUse: map[uint32]bool{}, want: []map[string]string{{"app": "a"}, {"app": "b"}}}
	a, kube := newAllocator(t, p)
	now := time.Unix(0, 0)
	a.now = func() time.Time { return now }
	if err := a.Allocate(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	p.inUse[65792] = true
	mesh := &v1alpha1.ClusterMeshSpec{ClusterID: 1}
	for range 9 {
		now = now.Add(time.Minute)
		a.Collect(t.Context(), mesh)
	}
	if got := stored(t, kube); len(got) != 2 {
		t.Fatalf("collected too early: %v", got)
	}
	p.inUse[65793] = true // a pod came back in the last minute
	now = now.Add(time.Minute)
	a.Collect(t.Context(), mesh)
	p.inUse[65793] = false
	for range 10 {
		now = now.Add(time.Minute)
		a.Collect(t.Context(), mesh)
	}
	if got := stored(t, kube); len(got) != 2 {
		t.Fatalf("the wait did not begin anew: %v", got)
	}
	now = now.Add(time.Minute)
	a.Collect(t.Context(), mesh)
	if got := stored(t, kube); len(got) != 1 || got["65792"] == "" {
		t.Fatalf("after the wait: %v", got)
	}
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

func TestGrow(t *testing.T) {
	have := &Lab{Topology: &topology.Instance{Spec: topology.Spec{Name: "x", Clusters: []string{"east"}, Nodes: 2}}}
	for name, c := range map[string]struct {
		old       *Lab
		ask, want topology.Spec
		refused   bool
	}{
		"new, nothing said": {ask: topology.Spec{Name: "x"}, want: topology.Spec{Name: "x", Clusters: []string{"east", "west"}, Nodes: 2}},
		"new, all said": {
			ask:  topology.Spec{Name: "x", Clusters: []string{"north"}, Nodes: 1},
			want: topology.Spec{Name: "x", Clusters: []string{"north"}, Nodes: 1},
		},
		"there, nothing said": {old: have, ask: topology.Spec{Name: "x"}, want: have.Topology.Spec},
		"there, more":         {old: have, ask: topology.Spec{Name: "x", Clusters: []string{"west"}, Nodes: 3}, want: topology.Spec{Name: "x", Clusters: []string{"east", "west"}, Nodes: 3}},
		"there, fewer nodes":  {old: have, ask: topology.Spec{Name: "x", Nodes: 1}, refused: true},
	} {
		got, err := grow(c.old, c.ask)
		if c.refused {
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
			continue
		}
		if err != nil || !slices.Equal(got.Clusters, c.want.Clusters) || got.Nodes != c.want.Nodes || got.Name != c.want.Name {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	if !slices.Equal(have.Topology.Spec.Clusters, []string{"east"}) {
		t.Errorf("what is there was changed: %v", have.Topology.Spec.Clusters)
	}
}

func TestDebtIsPaidOnlyForWhatIsStillOurs(t *testing.T) {
	dir := t.TempDir()
	empty, used := filepath.Join(dir, "a", "empty"), filepath.Join(dir, "b")
	for _, d := range []string{empty, used} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(used, "somebody's"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var d debt
	d.add(debt{MountPoints: []string{filepath.Dir(empty), used}})
	d.add(debt{MountPoints: []string{empty, used}, Limits: map[string]int{"no/such/limit": 1}})
	if len(d.MountPoints) != 3 {
		t.Errorf("mount points %v", d.MountPoints)
	}
	d.settle()
	if _, err := os.Stat(filepath.Dir(empty)); err == nil {
		t.Error("an empty directory is left")
	}
	if _, err := os.Stat(used); err != nil {
		t.Error("a directory in use was removed")
	}
}

func TestOneAtATime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for the registry in /run")
	}
	name := fmt.Sprintf("t%d", time.Now().UnixNano()%1_000_000_000)
	first, err := lock(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lock(ctx, name); err == nil {
		t.Fatal("locked twice")
	}
	// One that waits must get the lock in the end, although the first takes
	// the file with it.
	got := make(chan error)
	go func() {
		unlock, err := lock(t.Context(), name)
		if err == nil {
			unlock(removeLock)
		}
		got <- err
	}()
	first(removeLock)
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(registry, name+".lock")); err == nil {
		t.Error("the lock's file is left")
	}
}

func TestUnknownInstance(t *testing.T) {
	if _, err := Open("nosuch"); err == nil {
		t.Error("opened an instance that is not there")
	}
	if _, err := Open("../x"); err == nil {
		t.Error("opened a path")
	}
}

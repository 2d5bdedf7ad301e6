// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

func eastMesh() *v1alpha1.ClusterMeshSpec {
	return &v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"}}
}

func meshCluster(name string, id int32, age int, cidrs ...string) v1alpha1.MeshCluster {
	born := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(-time.Duration(age) * time.Hour)
	return v1alpha1.MeshCluster{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(born)},
		Spec:       v1alpha1.MeshClusterSpec{ClusterID: id, PodCIDRs: cidrs},
	}
}

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name     string
		clusters []v1alpha1.MeshCluster
		refused  map[string]string // name → part of the reason; all others are accepted
	}{
		{"two that fit", []v1alpha1.MeshCluster{meshCluster("west", 2, 0, "10.2.0.0/16"), meshCluster("north", 3, 0, "10.3.0.0/16")}, nil},
		{"own name", []v1alpha1.MeshCluster{meshCluster("east", 2, 0, "10.2.0.0/16")}, map[string]string{"east": "this cluster's own"}},
		{"own number", []v1alpha1.MeshCluster{meshCluster("west", 1, 0, "10.2.0.0/16")}, map[string]string{"west": "clusterID 1 is already"}},
		{"own addresses", []v1alpha1.MeshCluster{meshCluster("west", 2, 0, "10.0.0.0/8")}, map[string]string{"west": "overlaps with cluster \"east\""}},
		{"the older keeps its number", []v1alpha1.MeshCluster{meshCluster("a", 2, 0, "10.2.0.0/16"), meshCluster("b", 2, 5, "10.3.0.0/16")}, map[string]string{"a": "already cluster \"b\""}},
		{"the older keeps its addresses", []v1alpha1.MeshCluster{meshCluster("a", 2, 5, "10.2.0.0/16"), meshCluster("b", 3, 0, "10.2.128.0/17")}, map[string]string{"b": "overlaps with cluster \"a\""}},
		{"nonsense", []v1alpha1.MeshCluster{meshCluster("west", 2, 0, "ten"), meshCluster("north", 3, 0)}, map[string]string{"west": "podCIDRs", "north": "no podCIDRs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Decide(eastMesh(), tt.clusters)
			for _, c := range tt.clusters {
				d, why := got[c.Name], tt.refused[c.Name]
				switch {
				case why == "" && (d.Refused != nil || d.Claim == nil):
					t.Errorf("%s refused: %v", c.Name, d.Refused)
				case why != "" && (d.Refused == nil || d.Claim != nil || !strings.Contains(d.Refused.Error(), why)):
					t.Errorf("%s: refused %v, want %q", c.Name, d.Refused, why)
				}
			}
		})
	}
	if got := Decide(nil, []v1alpha1.MeshCluster{meshCluster("west", 2, 0, "10.2.0.0/16")}); len(got) != 0 {
		t.Errorf("decisions without a membership: %v", got)
	}
}

func TestNoNodeMayHaveAnAddressOfAnyClustersPods(t *testing.T) {
	got := Decide(eastMesh(), []v1alpha1.MeshCluster{meshCluster("west", 2, 0, "10.2.0.0/16"), meshCluster("north", 3, 0, "10.3.0.0/16"), meshCluster("twin", 3, 0, "10.4.0.0/16")})
	for _, name := range []string{"west", "north"} {
		var ranges []string
		for _, p := range got[name].Claim.MeshPodCIDRs {
			ranges = append(ranges, p.String())
		}
		slices.Sort(ranges)
		if strings.Join(ranges, " ") != "10.1.0.0/16 10.2.0.0/16 10.3.0.0/16" {
			t.Errorf("%s may not use as node addresses: %v", name, ranges)
		}
	}
}

func TestAdmit(t *testing.T) {
	known := Decide(eastMesh(), []v1alpha1.MeshCluster{meshCluster("west", 2, 0, "10.2.0.0/16")})
	cluster := func(change func(*recordv1.Cluster)) *recordv1.Cluster {
		c := &recordv1.Cluster{
			Name: "north", Id: 3, MeshId: "m", PodCidrs: []string{"10.3.0.0/16"},
			Labels: map[string]string{v1alpha1.LabelCluster: "north"},
		}
		change(c)
		return c
	}
	for _, tt := range []struct {
		name string
		c    *recordv1.Cluster
		why  string
	}{
		{"fits", cluster(func(*recordv1.Cluster) {}), ""},
		{"own number", cluster(func(c *recordv1.Cluster) { c.Id = 1 }), "clusterID 1"},
		{"another's number", cluster(func(c *recordv1.Cluster) { c.Id = 2 }), "already cluster \"west\""},
		{"no number", cluster(func(c *recordv1.Cluster) { c.Id = 0 }), "id"},
		{"number too high", cluster(func(c *recordv1.Cluster) { c.Id = 256 }), "id"},
		{"own addresses", cluster(func(c *recordv1.Cluster) { c.PodCidrs = []string{"10.1.2.0/24"} }), "overlaps"},
		{"everything", cluster(func(c *recordv1.Cluster) { c.PodCidrs = []string{"0.0.0.0/0"} }), "every address"},
		{"another mesh", cluster(func(c *recordv1.Cluster) { c.MeshId = "other" }), "mesh \"other\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec, err := Admit(eastMesh(), tt.c, known)
			if tt.why == "" {
				if err != nil || spec.ClusterID != 3 || spec.PodCIDRs[0] != "10.3.0.0/16" || spec.Acceptance != v1alpha1.AcceptAutomatic {
					t.Fatalf("Admit = %+v, %v", spec, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("Admit: %v, want %q", err, tt.why)
			}
		})
	}
}

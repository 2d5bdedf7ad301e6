// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"fmt"
	"maps"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
)

var rejectedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "fairlead_records_rejected_total",
	Help: "Records of other clusters that failed validation, by cluster and reason.",
}, []string{"cluster", "reason"})

func init() { metrics.Registry.MustRegister(rejectedTotal) }

// Rejection is a record that was refused, and why.
type Rejection struct {
	Key, Message string
}

// RemoteOverview sums up another cluster.
type RemoteOverview struct {
	State      store.ClusterState
	Decision   *Decision // nil: it has no MeshCluster
	Records    map[string]int32
	Rejected   int
	Rejections []Rejection
	Announced  *recordv1.Cluster
}

// Overview is what status reports are made from.
type Overview struct {
	Own      store.ClusterState
	Impostor string
	Remotes  map[string]RemoteOverview
}

// maxRejections shown of a cluster.
const maxRejections = 10

// Overview gives the state of things. It costs as much as there are clusters, whatever they hold.
func (i *Intake) Overview() Overview {
	i.mu.Lock()
	defer i.mu.Unlock()
	o := Overview{Own: i.ownState, Impostor: i.impostor, Remotes: map[string]RemoteOverview{}}
	for name, r := range i.remotes {
		ro := RemoteOverview{
			State: r.state, Records: maps.Clone(r.counts), Rejected: r.refused.count,
			Rejections: r.refused.show(maxRejections), Announced: r.announce,
		}
		if d, ok := i.decisions[name]; ok {
			ro.Decision = &d
		}
		o.Remotes[name] = ro
	}
	for name, d := range i.decisions {
		if _, seen := o.Remotes[name]; !seen {
			o.Remotes[name] = RemoteOverview{Decision: &d}
		}
	}
	return o
}

// foreignClaim says how a Cluster record under this cluster's name shows that somebody else wrote it; "" if it doesn't.
func foreignClaim(c *recordv1.Cluster, own record.Claim) string {
	switch {
	case c == nil:
		return ""
	case c.GetMeshId() != own.MeshID:
		return fmt.Sprintf("a cluster of mesh %q publishes under the name %q too", c.GetMeshId(), own.Name)
	case c.GetId() != uint32(own.ID):
		return fmt.Sprintf("a cluster with clusterID %d publishes under the name %q too (this one has %d)", c.GetId(), own.Name, own.ID)
	}
	return ""
}

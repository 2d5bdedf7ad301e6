// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/controlplane"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// ClusterStatus is what a cluster's API server says.
type ClusterStatus struct {
	Name  string
	Error error
	Nodes []NodeStatus
}

// NodeStatus is a node and why it is not ready, if it is not.
type NodeStatus struct {
	Name  string
	Error error
}

// Clusters asks each cluster's API server.
func (l *Lab) Clusters(ctx context.Context) []ClusterStatus {
	var all []ClusterStatus
	for i := range l.Topology.Clusters {
		c := &l.Topology.Clusters[i]
		s := ClusterStatus{Name: c.Name}
		client, err := l.client(c.Name)
		if err == nil {
			s.Nodes, err = askNodes(ctx, client, c)
		}
		s.Error = err
		all = append(all, s)
	}
	return all
}

func askNodes(ctx context.Context, client *controlplane.Client, c *topology.Cluster) ([]NodeStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := client.Ready(ctx); err != nil {
		return nil, err
	}
	var all []NodeStatus
	for _, n := range c.Nodes {
		all = append(all, NodeStatus{Name: n.Name, Error: nodeReady(ctx, client, n.Name)})
	}
	return all, nil
}

func (l *Lab) client(cluster string) (*controlplane.Client, error) {
	cp, err := l.controlPlane(cluster)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", cluster, err)
	}
	return cp.Client()
}

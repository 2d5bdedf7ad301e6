// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

// Facts are what the statuses of this cluster and of the others are made from. Objects in it that are no status of ours
// must not be changed.
type Facts struct {
	Now       time.Time
	Version   string
	Mesh      *v1alpha1.ClusterMesh
	Store     federate.Status
	Federated federate.Overview
	Refused   map[string]string
	Clusters  []v1alpha1.MeshCluster
	Tunnels   map[string]v1alpha1.NodeCounts // to each of Clusters
	Nodes     []string
	Agents    map[string]*v1alpha1.MeshNode // by node
}

func (s *Status) gather(ctx context.Context) (*Facts, error) {
	f := &Facts{
		Now: s.now(), Version: s.cfg.Version,
		Store: s.cfg.Connection.Status(), Federated: s.cfg.Intake.Overview(), Refused: s.cfg.Discoverer.Refused(),
		Tunnels: map[string]v1alpha1.NodeCounts{}, Agents: map[string]*v1alpha1.MeshNode{},
	}
	mesh := &v1alpha1.ClusterMesh{}
	if err := s.client.Get(ctx, client.ObjectKey{Name: federate.MeshName}, mesh); err == nil {
		f.Mesh = mesh
	} else if client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read the ClusterMesh: %w", err)
	}
	var clusters v1alpha1.MeshClusterList
	if err := s.client.List(ctx, &clusters); err != nil {
		return nil, fmt.Errorf("list MeshClusters: %w", err)
	}
	f.Clusters = clusters.Items
	s.ledger.nodes(f)
	return f, nil
}

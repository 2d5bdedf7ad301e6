// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"errors"
	"fmt"

	"github.com/cilium/statedb"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Change is a record that came (or came anew), or, with Record nil, one that is gone.
type Change struct {
	Key    string
	Record *recordv1.Record
}

// WriteRecords applies changes as one transaction.
func (t *Tables) WriteRecords(changes []Change) error {
	txn := t.DB.WriteTxn(t.Clusters.rows, t.Nodes.rows, t.Identities.rows, t.Endpoints.rows, t.Services.rows,
		t.Slices.rows, t.Policies.rows)
	defer txn.Abort()
	for _, c := range changes {
		if err := t.write(txn, c); err != nil {
			return fmt.Errorf("writing record %s: %w", c.Key, err)
		}
	}
	txn.Commit()
	return nil
}

func (t *Tables) write(txn statedb.WriteTxn, c Change) error {
	if c.Record == nil {
		return t.drop(txn, c.Key)
	}
	cluster := c.Record.GetCluster()
	switch p := c.Record.GetPayload().(type) {
	case *recordv1.Record_ClusterInfo:
		return t.Clusters.put(txn, c.Key, cluster, p.ClusterInfo)
	case *recordv1.Record_Node:
		return t.Nodes.put(txn, c.Key, cluster, p.Node)
	case *recordv1.Record_Identity:
		return t.Identities.put(txn, c.Key, cluster, p.Identity)
	case *recordv1.Record_Endpoint:
		return t.Endpoints.put(txn, c.Key, cluster, p.Endpoint)
	case *recordv1.Record_Service:
		return t.Services.put(txn, c.Key, cluster, p.Service)
	case *recordv1.Record_BackendSlice:
		return t.Slices.put(txn, c.Key, cluster, p.BackendSlice)
	case *recordv1.Record_Policy:
		return t.Policies.put(txn, c.Key, cluster, p.Policy)
	}
	return nil // a kind that only newer agents know
}

func (t *Tables) drop(txn statedb.WriteTxn, key string) error {
	switch kindOf(key) {
	case "cluster":
		return t.Clusters.drop(txn, key)
	case "nodes":
		return t.Nodes.drop(txn, key)
	case "identities":
		return t.Identities.drop(txn, key)
	case "endpoints":
		return t.Endpoints.drop(txn, key)
	case "services":
		return t.Services.drop(txn, key)
	case "slices":
		return t.Slices.drop(txn, key)
	case "policies":
		return t.Policies.drop(txn, key)
	}
	return nil
}

// RecordChanges follows the tables of records.
type RecordChanges struct {
	clusters   statedb.ChangeIterator[*Record[*recordv1.Cluster]]
	nodes      statedb.ChangeIterator[*Record[*recordv1.Node]]
	identities statedb.ChangeIterator[*Record[*recordv1.Identity]]
	endpoints  statedb.ChangeIterator[*Record[*recordv1.Endpoint]]
	services   statedb.ChangeIterator[*Record[*recordv1.Service]]
	slices     statedb.ChangeIterator[*Record[*recordv1.BackendSlice]]
	policies   statedb.ChangeIterator[*Record[*recordv1.Policy]]
}

// FollowRecords begins with everything that is there.
func (t *Tables) FollowRecords() (*RecordChanges, error) {
	c := &RecordChanges{}
	var errs [7]error
	c.clusters, errs[0] = t.Clusters.changes(t.DB)
	c.nodes, errs[1] = t.Nodes.changes(t.DB)
	c.identities, errs[2] = t.Identities.changes(t.DB)
	c.endpoints, errs[3] = t.Endpoints.changes(t.DB)
	c.services, errs[4] = t.Services.changes(t.DB)
	c.slices, errs[5] = t.Slices.changes(t.DB)
	c.policies, errs[6] = t.Policies.changes(t.DB)
	return c, errors.Join(errs[:]...)
}

// Visitor is called with each change.
type Visitor struct {
	Cluster  func(statedb.Change[*Record[*recordv1.Cluster]])
	Node     func(statedb.Change[*Record[*recordv1.Node]])
	Identity func(statedb.Change[*Record[*recordv1.Identity]])
	Endpoint func(statedb.Change[*Record[*recordv1.Endpoint]])
	Service  func(statedb.Change[*Record[*recordv1.Service]])
	Slice    func(statedb.Change[*Record[*recordv1.BackendSlice]])
	Policy   func(statedb.Change[*Record[*recordv1.Policy]])
}

// Next visits what changed up to txn. The channels close when there is more.
func (c *RecordChanges) Next(txn statedb.ReadTxn, v Visitor) []<-chan struct{} {
	return []<-chan struct{}{
		visit(c.clusters, txn, v.Cluster), visit(c.nodes, txn, v.Node), visit(c.identities, txn, v.Identity),
		visit(c.endpoints, txn, v.Endpoint), visit(c.services, txn, v.Service), visit(c.slices, txn, v.Slice),
		visit(c.policies, txn, v.Policy),
	}
}

func visit[B any](it statedb.ChangeIterator[*Record[B]], txn statedb.ReadTxn, f func(statedb.Change[*Record[B]])) <-chan struct{} {
	seq, watch := it.Next(txn)
	for c := range seq {
		f(c)
	}
	return watch
}

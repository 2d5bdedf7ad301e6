// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/statedb"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// dirt says what must be planned anew.
type dirt struct {
	network  bool
	policies bool
	services map[string]bool // namespace/name
}

func (d dirt) none() bool { return !d.network && !d.policies && len(d.services) == 0 }

// watch follows the sources and decides what their changes touch.
type watch struct {
	cfg      Config
	changes  *table.RecordChanges
	channels []<-chan struct{}
	dirty    dirt
	// pods holds what policies need to know of endpoints: of this node's the identity, of all the named ports.
	pods map[string]podFacts
}

type podFacts struct {
	identity uint32
	local    bool
	ports    string            // ports, in a comparable form
	named    map[string]uint32 // "name/TCP" → number
}

func newWatch(t *table.Tables, cfg Config) (*watch, error) {
	changes, err := t.FollowRecords()
	if err != nil {
		return nil, err
	}
	return &watch{cfg: cfg, changes: changes, dirty: dirt{services: map[string]bool{}}, pods: map[string]podFacts{}}, nil
}

// collect adds the changes up to txn to what is dirty already.
func (w *watch) collect(txn statedb.ReadTxn) dirt {
	w.channels = w.changes.Next(txn, table.Visitor{
		Cluster: func(statedb.Change[*table.Record[*recordv1.Cluster]]) {
			w.dirty.network, w.dirty.policies = true, true
		},
		Node:     func(statedb.Change[*table.Record[*recordv1.Node]]) { w.dirty.network = true },
		Identity: func(statedb.Change[*table.Record[*recordv1.Identity]]) { w.dirty.policies = true },
		Endpoint: w.endpoint,
		Service: func(c statedb.Change[*table.Record[*recordv1.Service]]) {
			w.dirty.services[table.ServiceTerm(c.Object.Body.Namespace, c.Object.Body.Name)] = true
		},
		Slice: func(c statedb.Change[*table.Record[*recordv1.BackendSlice]]) {
			w.dirty.services[table.ServiceTerm(c.Object.Body.Namespace, c.Object.Body.Service)] = true
		},
		Policy: func(c statedb.Change[*table.Record[*recordv1.Policy]]) {
			w.dirty.policies = w.dirty.policies || c.Object.Cluster == w.cfg.Cluster
		},
	})
	return w.dirty
}

// clean forgets what was dirty; what was planned is planned.
func (w *watch) clean() { w.dirty = dirt{services: map[string]bool{}} }

// endpoint lets policies be compiled only if it brings or takes an identity to or from this node, or named ports: most
// pods that come and go are more of the same.
func (w *watch) endpoint(c statedb.Change[*table.Record[*recordv1.Endpoint]]) {
	w.dirty.network = true
	key, e := c.Object.Key, c.Object.Body
	var now podFacts
	if !c.Deleted {
		now = podFacts{identity: e.Identity, local: c.Object.Cluster == w.cfg.Cluster && e.Node == w.cfg.Node, named: e.NamedPorts}
		now.ports = joinPorts(e.NamedPorts)
	}
	before := w.pods[key]
	if now.local || now.ports != "" {
		w.pods[key] = now
	} else {
		delete(w.pods, key)
	}
	// Comparing the fields errs on the side of compiling: another pod of the same kind may already be here.
	if before.local != now.local || now.local && before.identity != now.identity {
		w.dirty.policies = true
	}
	if before.ports != now.ports || now.ports != "" && before.identity != now.identity {
		w.dirty.policies = true
	}
}

func joinPorts(named map[string]uint32) string {
	parts := make([]string, 0, len(named))
	for name, port := range named {
		parts = append(parts, fmt.Sprintf("%s=%d", name, port))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// subjects are the identities of this node's pods.
func (w *watch) subjects() map[uint32]struct{} {
	out := map[uint32]struct{}{}
	for _, p := range w.pods {
		if p.local {
			out[p.identity] = struct{}{}
		}
	}
	return out
}

// namedPorts of each identity.
func (w *watch) namedPorts() map[uint32]map[string][]uint16 {
	out := map[uint32]map[string][]uint16{}
	for _, p := range w.pods {
		for name, port := range p.named {
			ports := out[p.identity]
			if ports == nil {
				ports = map[string][]uint16{}
				out[p.identity] = ports
			}
			if !slices.Contains(ports[name], uint16(port)) {
				ports[name] = append(ports[name], uint16(port))
			}
		}
	}
	for _, ports := range out {
		for _, numbers := range ports {
			slices.Sort(numbers)
		}
	}
	return out
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"strings"
	"sync"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/operator/aggregate"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// policyRef names a policy object.
type policyRef struct{ kind, namespace, name string }

// refOf reads the key of a policy's record: <cluster>/policies/<kind>/<namespace or ->/<name>.
func refOf(key string) policyRef {
	parts := strings.Split(key, "/")
	if len(parts) != 5 {
		return policyRef{}
	}
	if parts[3] == "-" {
		parts[3] = ""
	}
	return policyRef{parts[2], parts[3], parts[4]}
}

func (r policyRef) key(cluster string) string {
	key, err := record.PolicyKey(cluster, r.kind, r.namespace, r.name)
	if err != nil {
		return "" // such a policy is not exported, and no agent reports it
	}
	return key
}

// ledger is an aggregate.Index that informers feed, with the objects whose status is due for a look.
type ledger struct {
	mu      sync.Mutex
	cluster string // empty until the first export
	index   *aggregate.Index
	sources map[aggregate.SourceName]*v1alpha1.PolicySource

	duePolicies map[policyRef]struct{}
	dueSources  map[aggregate.SourceName]struct{}
}

func newLedger() *ledger {
	return &ledger{
		index: aggregate.New(), sources: map[aggregate.SourceName]*v1alpha1.PolicySource{},
		duePolicies: map[policyRef]struct{}{}, dueSources: map[aggregate.SourceName]struct{}{},
	}
}

// export takes the policies that agents are given. It says whether there are any news.
func (l *ledger) export(cluster string, changes []export.Change) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	joined := l.cluster == ""
	l.cluster = cluster
	news := joined
	for _, c := range changes {
		if record.Kind(c.Key) != record.KindPolicy {
			continue
		}
		news = true
		want, ok := wanted(c.Record)
		if !ok {
			l.index.RemovePolicy(c.Key)
			continue
		}
		l.index.SetPolicy(c.Key, want)
	}
	if joined {
		for name, src := range l.sources {
			l.indexSource(name, src)
		}
	}
	return news
}

// wanted is what agents will report of a policy once they enforce this record; false if there is none.
func wanted(rec *recordv1.Record) (aggregate.Wanted, bool) {
	if rec == nil {
		return aggregate.Wanted{}, false
	}
	o, err := record.Parse(rec)
	p, ok := o.(*record.Policy)
	if err != nil || !ok {
		return aggregate.Wanted{}, false
	}
	return aggregate.Wanted{
		Version: aggregate.Version{Revision: p.Provenance.Revision, Content: p.Content()}, UID: p.UID, Generation: p.Generation, Mode: p.Mode,
	}, true
}

func (l *ledger) setNode(name string, exists bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index.SetNode(name, exists)
}

func (l *ledger) setAgent(name string, agent *v1alpha1.MeshNode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index.SetAgent(name, agent)
}

// touchPolicy makes a policy's status due though no sum of it changed.
func (l *ledger) touchPolicy(r policyRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.duePolicies[r] = struct{}{}
}

// setSource takes a PolicySource; nil: it is gone.
func (l *ledger) setSource(name aggregate.SourceName, src *v1alpha1.PolicySource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if src == nil || src.Status.LastAppliedRevision == "" {
		delete(l.sources, name)
		l.index.RemoveSource(name)
		return
	}
	l.sources[name] = src
	l.dueSources[name] = struct{}{}
	if l.cluster != "" {
		l.indexSource(name, src)
	}
}

func (l *ledger) indexSource(name aggregate.SourceName, src *v1alpha1.PolicySource) {
	keys := make([]string, 0, len(src.Status.Inventory))
	for _, e := range src.Status.Inventory {
		if key := (policyRef{e.Kind, e.Namespace, e.Name}).key(l.cluster); key != "" {
			keys = append(keys, key)
		}
	}
	l.index.SetSource(name, src.Status.LastAppliedRevision, keys)
}

// due is what a pass writes.
type due struct {
	policies map[policyRef]aggregate.Policy
	sources  map[aggregate.SourceName]v1alpha1.PolicyNodes
	more     bool // something was left for the next pass
}

// take gives at most so many policies, and all sources, whose status is due. What can't be written must be touched again.
func (l *ledger) take(most int) due {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := due{policies: map[policyRef]aggregate.Policy{}, sources: map[aggregate.SourceName]v1alpha1.PolicyNodes{}}
	if l.cluster == "" {
		return d
	}
	policies, sources := l.index.TakeDirty()
	for _, key := range policies {
		l.duePolicies[refOf(key)] = struct{}{}
	}
	for _, name := range sources {
		l.dueSources[name] = struct{}{}
	}
	for r := range l.duePolicies {
		if len(d.policies) == most {
			d.more = true
			break
		}
		d.policies[r] = l.index.Policy(r.key(l.cluster))
		delete(l.duePolicies, r)
	}
	for name := range l.dueSources {
		d.sources[name] = l.index.Source(name)
	}
	clear(l.dueSources)
	return d
}

// touchSource does the same for a PolicySource.
func (l *ledger) touchSource(name aggregate.SourceName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dueSources[name] = struct{}{}
}

// nodes fills in what Facts hold of nodes and tunnels. The MeshNodes are the cache's own: they must not be changed.
func (l *ledger) nodes(f *Facts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, n := range l.index.Nodes() {
		if n.Exists {
			f.Nodes = append(f.Nodes, name)
		}
		if n.Agent != nil {
			f.Agents[name] = n.Agent
		}
	}
	for i := range f.Clusters {
		name := f.Clusters[i].Name
		f.Tunnels[name] = l.index.Tunnels(name, int(f.Federated.Remotes[name].Records[record.KindNode]))
	}
}

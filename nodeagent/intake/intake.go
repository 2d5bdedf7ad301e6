// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Config of the intake.
type Config struct {
	Tables   *table.Tables
	Node     string
	Snapshot string // file; empty: nothing is kept on disk
	// Changed is called after each batch.
	Changed func()
	Log     *slog.Logger
}

// saveAfter gathers changes before the snapshot is written.
const saveAfter = 2 * time.Second

// Intake is the agent's side of the stream.
type Intake struct {
	cfg Config

	mu       sync.Mutex
	state    *relay.State
	restored bool
	live     bool // the relay has spoken in this run
	waited   bool // and need not be waited for any longer
	cluster  string
	saveErr  error
	dirty    chan struct{}
}

// New makes an empty intake.
func New(cfg Config) *Intake {
	return &Intake{cfg: cfg, state: relay.NewState(), dirty: make(chan struct{}, 1)}
}

// Restore fills the tables from the snapshot on disk. That there is none is no error.
func (i *Intake) Restore() error {
	if i.cfg.Snapshot == "" {
		return nil
	}
	s, err := readSnapshot(i.cfg.Snapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the last snapshot: %w", err)
	}
	changes := make([]table.Change, 0, len(s.records))
	for key, rec := range s.records {
		changes = append(changes, table.Change{Key: key, Record: rec})
	}
	if err := i.cfg.Tables.WriteRecords(changes); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.state = relay.RestoreState(s.records, s.clusters, s.at)
	i.restored = true
	i.cluster = i.findCluster()
	return nil
}

// Handle takes in a batch. It is relay.Client's handler.
func (i *Intake) Handle(b *relayv1.Batch) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	diff := i.state.Apply(b)
	i.live = true
	changes := make([]table.Change, 0, len(diff))
	for _, c := range diff {
		changes = append(changes, table.Change{Key: c.GetKey(), Record: c.GetRecord()})
	}
	if err := i.cfg.Tables.WriteRecords(changes); err != nil {
		return err
	}
	i.cluster = i.findCluster()
	if len(changes) > 0 || b.GetSnapshotEnd() {
		select {
		case i.dirty <- struct{}{}:
		default:
		}
	}
	i.cfg.Changed()
	return nil
}

// Resume is where the stream goes on.
func (i *Intake) Resume() *relayv1.ResumePoint {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Resume()
}

// Position is the newest batch that is in the tables.
func (i *Intake) Position() *relayv1.ResumePoint {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Applied()
}

// Cluster is this node's own, empty while it is not known.
func (i *Intake) Cluster() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cluster
}

// StopWaiting lets the disk's word count although the relay has not spoken.
func (i *Intake) StopWaiting() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waited = true
}

// Usable says that the tables hold a state that once was whole, so that it may be planned. What comes from the disk is
// older than what the kernel holds, by as much as the disk was slow; so the relay is waited for before it counts.
func (i *Intake) Usable() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.live && i.state.Applied() != nil || i.restored && (i.live || i.waited)
}

// Complete says that nothing is missing from the tables, so that what they don't speak of is gone: only the relay can
// know that. A pod that started while the last snapshot was on its way to the disk would lose its programs otherwise.
func (i *Intake) Complete() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.live || !i.state.Complete() {
		return false
	}
	for _, c := range i.state.Clusters() {
		if !c.GetSynced() {
			return false
		}
	}
	return true
}

// Err says why the snapshot can't be saved.
func (i *Intake) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.saveErr
}

// findCluster takes the relay's word. Without it, a node record of this node's name says it if there is just one.
func (i *Intake) findCluster() string {
	if i.cluster != "" {
		return i.cluster // part of every identity: it never changes
	}
	for _, c := range i.state.Clusters() {
		if c.GetLocal() {
			return c.GetName()
		}
	}
	found := ""
	for key, rec := range i.state.All() {
		if record.Kind(key) != record.KindNode || rec.GetNode().GetName() != i.cfg.Node {
			continue
		}
		if found != "" {
			return ""
		}
		found = record.ClusterOf(key)
	}
	return found
}

// Save writes snapshots until ctx ends, and a last one then.
func (i *Intake) Save(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			i.saveOnce()
			return nil
		case <-i.dirty:
		}
		i.saveOnce()
		select {
		case <-ctx.Done():
			i.saveOnce()
			return nil
		case <-time.After(saveAfter):
		}
	}
}

// saveOnce writes what is held now, unless the stream is in the middle of a snapshot or has none yet.
func (i *Intake) saveOnce() {
	if i.cfg.Snapshot == "" {
		return
	}
	i.mu.Lock()
	if !i.state.Complete() {
		i.mu.Unlock()
		return
	}
	s := snapshot{at: i.state.Resume(), clusters: i.state.Clusters(), records: maps.Collect(i.state.All())}
	i.mu.Unlock()

	err := writeSnapshot(i.cfg.Snapshot, s)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil && (i.saveErr == nil || i.saveErr.Error() != err.Error()) {
		i.cfg.Log.Warn("the snapshot is not saved; the last one stays", "error", err)
	}
	if (err == nil) != (i.saveErr == nil) {
		defer i.cfg.Changed()
	}
	i.saveErr = err
}

// snapshot is what is kept on disk.
type snapshot struct {
	at       *relayv1.ResumePoint
	clusters []*relayv1.ClusterState
	records  map[string]*recordv1.Record
}

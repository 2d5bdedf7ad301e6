// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake/journal"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Config of the intake.
type Config struct {
	Tables   *table.Tables // their RecordWriter must be free
	Node     string
	Snapshot string        // file; empty: nothing is kept on disk
	Version  string        // of this agent
	Every    time.Duration // at most one write to the disk in this time; zero: DefaultEvery
	// Changed is called after each batch that says something.
	Changed func()
	Log     *slog.Logger
}

// Intake is the agent's side of the stream.
type Intake struct {
	cfg     Config
	records *table.RecordWriter
	journal *journal.Journal // nil: nothing is kept; used by Restore and then by Save alone

	mu         sync.Mutex
	state      *relay.State
	queue      *queue
	counts     map[string]int // records by cluster
	unreadable unreadable
	complete   *Completeness
	snapshots  int  // that the relay sent whole
	restored   bool // a whole state came from the disk
	live       bool // the relay brought the tables up to date once in this run
	waited     bool // and need not be waited for any longer
	cluster    string

	membersChanged bool // since judge looked
	saveErr        error
	saved          *journal.Mark // the last one on the disk in this run
	dirty          wakeup.Signal
	full           wakeup.Signal // the queue is large
}

// New makes an intake, which takes the tables' RecordWriter.
func New(cfg Config) *Intake {
	i := &Intake{
		cfg: cfg, records: cfg.Tables.RecordWriter(), state: relay.NewState(), queue: newQueue(), counts: map[string]int{},
		complete: &Completeness{}, dirty: wakeup.New(), full: wakeup.New(),
	}
	if cfg.Snapshot != "" {
		i.journal = journal.New(cfg.Snapshot, origin(cfg.Version))
	}
	return i
}

// Handle takes in a batch. It is relay.Client's handler.
func (i *Intake) Handle(b *relayv1.Batch) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := i.state.Applied().GetRevision()
	if b.GetSnapshotStart() {
		i.unreadable = unreadable{} // what is still there comes again
	}
	changes := i.state.Apply(b, i.records.Keys())
	changed, err := i.write(changes, i.journal != nil)
	if err != nil {
		return err
	}
	if b.GetSnapshotEnd() {
		i.snapshots++
	}
	moved := len(b.GetClusters()) > 0 || b.GetSnapshotStart() || b.GetSnapshotEnd()
	if moved || i.membersChanged {
		i.judge()
	}
	if !moved && !changed && at == i.state.Applied().GetRevision() {
		return nil // a relay that has nothing to send yet shows so that it is there
	}
	i.dirty.Raise()
	if i.queue.bytes > portionBytes {
		i.full.Raise()
	}
	i.cfg.Changed()
	return nil
}

// write brings changes to the tables, as one transaction, and to the queue for the disk if wanted.
func (i *Intake) write(changes []*relayv1.Change, queued bool) (changed bool, err error) {
	objects := make([]record.Object, len(changes))
	for n, c := range changes {
		var why error
		if c.GetRecord() != nil {
			objects[n], why = parse(c)
		}
		i.unreadable.set(c.GetKey(), why)
	}
	i.records.Write(func(txn table.RecordTxn) {
		for n, c := range changes {
			held := txn.Has(c.GetKey())
			if held && c.GetRecord() != nil && objects[n] == nil && keepsLast(c.GetKey()) {
				continue
			}
			if !put(txn, c.GetKey(), objects[n]) {
				continue
			}
			changed = true
			holds := txn.Has(c.GetKey())
			i.count(c.GetKey(), held, holds)
			if queued {
				err = errors.Join(err, i.enqueue(c, held, holds))
			}
		}
	})
	return changed, err
}

func put(txn table.RecordTxn, key string, o record.Object) (changed bool) {
	if o == nil {
		return txn.Drop(key)
	}
	return txn.Put(key, o)
}

// count keeps how many records each cluster has, and notes what judge draws conclusions from.
func (i *Intake) count(key string, held, holds bool) {
	cluster := record.ClusterOf(key)
	before := i.counts[cluster]
	switch {
	case !held && holds:
		i.counts[cluster]++
	case held && !holds && before == 1:
		delete(i.counts, cluster)
	case held && !holds:
		i.counts[cluster]--
	}
	i.membersChanged = i.membersChanged || record.Kind(key) == record.KindCluster || (before == 0) != (i.counts[cluster] == 0)
}

// enqueue keeps on the disk what the tables hold: a record that counts as absent is written as gone.
func (i *Intake) enqueue(c *relayv1.Change, held, holds bool) error {
	if !holds {
		c = &relayv1.Change{Key: c.GetKey()}
	}
	data, err := journal.Encode(c)
	if err != nil {
		return err
	}
	i.queue.add(c.GetKey(), data, !holds, held)
	return nil
}

// Resume is where the stream goes on.
func (i *Intake) Resume() *relayv1.ResumePoint {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Resume()
}

// Snapshots counts those that came whole from the relay.
func (i *Intake) Snapshots() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.snapshots
}

// Position is the newest batch that is in the tables.
func (i *Intake) Position() *relayv1.ResumePoint {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Applied()
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake/journal"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// DefaultEvery gathers changes before they are written.
const DefaultEvery = 2 * time.Second

const (
	portionBytes     = 2 << 20 // written, and held twice, at once
	recordsInPortion = 1000    // restored at once
)

// origin names who writes the journal: an agent of another version, or with other fields in its records, may have kept less
// of them than we would.
func origin(version string) string {
	file := protodesc.ToFileDescriptorProto(recordv1.File_mesh_record_v1_record_proto)
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(file)
	if err != nil {
		panic(fmt.Sprintf("encode a descriptor that is part of the binary: %v", err))
	}
	return fmt.Sprintf("%s %x", version, sha256.Sum256(data))
}

// Restore fills the tables from the disk. That there is nothing is no error. It is called before anything else.
func (i *Intake) Restore() error {
	if i.journal == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	mark, err := i.restore()
	if err != nil {
		i.forget()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	i.state = relay.RestoreState(mark.Clusters, mark.At)
	i.restored = true
	if i.state.Local() == "" {
		i.cluster = i.guessCluster()
	}
	i.judge()
	return nil
}

func (i *Intake) restore() (journal.Mark, error) {
	var changes []*relayv1.Change
	mark, err := i.journal.Restore(func(c *relayv1.Change) error {
		changes = append(changes, c)
		if len(changes) < recordsInPortion {
			return nil
		}
		_, err := i.write(changes, false)
		clear(changes)
		changes = changes[:0]
		return err
	})
	if err != nil {
		return mark, err
	}
	_, err = i.write(changes, false)
	return mark, err
}

// forget removes what was restored from a file that turned out not to be whole.
func (i *Intake) forget() {
	keys := slices.Collect(i.records.Keys())
	i.records.Write(func(txn table.RecordTxn) {
		for _, key := range keys {
			txn.Drop(key)
		}
	})
	i.counts, i.unreadable = map[string]int{}, unreadable{}
}

// Save writes what changes until ctx ends, and what is left then.
func (i *Intake) Save(ctx context.Context) error {
	if i.journal == nil {
		<-ctx.Done()
		return nil
	}
	every := cmp.Or(i.cfg.Every, DefaultEvery)
	for {
		select {
		case <-ctx.Done():
			i.flush()
			return i.journal.Close()
		case <-i.dirty:
		}
		full := i.full
		if !i.flush() {
			full = nil // a disk that takes nothing is not asked more often because of that
		}
		select {
		case <-ctx.Done():
		case <-full:
		case <-time.After(every):
		}
	}
}

// flush writes the queue in portions. The last one bears the mark, if the state is whole.
func (i *Intake) flush() (ok bool) {
	for {
		p, mark, more := i.portion()
		if len(p.keys) == 0 && mark == nil {
			return true
		}
		err := i.journal.Append(p.changes, mark)
		if err != nil {
			i.failed(p, err)
			return false
		}
		if mark != nil {
			i.mu.Lock()
			i.saved = mark
			i.mu.Unlock()
			err = i.journal.Compact(i.records.Len())
		}
		i.report(err)
		if !more {
			return true
		}
	}
}

// portion takes what to write next. The mark is nil if the state is not whole, or if the disk has it already.
func (i *Intake) portion() (p portion, mark *journal.Mark, more bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p = i.queue.take(portionBytes)
	if len(i.queue.changes) > 0 {
		return p, nil, true
	}
	if !i.state.Whole() {
		return p, nil, false
	}
	mark = &journal.Mark{At: i.state.Saved(), Clusters: i.state.Clusters()}
	slices.SortFunc(mark.Clusters, func(a, b *relayv1.ClusterState) int { return cmp.Compare(a.GetName(), b.GetName()) })
	if len(p.keys) == 0 && i.saved != nil && equalMarks(mark, i.saved) {
		mark = nil
	}
	return p, mark, false
}

func equalMarks(a, b *journal.Mark) bool {
	return proto.Equal(a.At, b.At) &&
		slices.EqualFunc(a.Clusters, b.Clusters, func(x, y *relayv1.ClusterState) bool { return proto.Equal(x, y) })
}

// failed queues again what could not be written, for the next try.
func (i *Intake) failed(p portion, err error) {
	i.mu.Lock()
	i.queue.giveBack(p)
	i.mu.Unlock()
	i.report(err)
	i.dirty.Raise()
}

// report remembers whether saving works, and says when that changes.
func (i *Intake) report(err error) {
	i.mu.Lock()
	before := i.saveErr
	i.saveErr = err
	i.mu.Unlock()
	if err != nil && (before == nil || before.Error() != err.Error()) {
		i.cfg.Log.Warn("records are not saved; the last state stays on the disk", "error", err)
	}
	if (err == nil) != (before == nil) {
		i.cfg.Changed()
	}
}

// Err says why records can't be saved.
func (i *Intake) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.saveErr
}

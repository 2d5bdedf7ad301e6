// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Bounds of one transaction, below etcd's defaults (128 operations, 1.5 MiB) with room for the fence.
const (
	maxTxnOps   = 100
	maxTxnBytes = 1 << 20
)

// errMoved says that the fence is not where we left it: another leader, or a store that lost our writes.
var errMoved = errors.New("the fence in the store is not the one last written")

// fenceValue names the writer and the fence it moved on from, so that readers can tell an unbroken chain.
func fenceValue(session string, previous int64) string {
	return session + " " + strconv.FormatInt(previous, 10)
}

func parseFence(value []byte) (session string, previous int64, ok bool) {
	session, text, found := strings.Cut(string(value), " ")
	previous, err := strconv.ParseInt(text, 10, 64)
	return session, previous, found && err == nil
}

// claim takes the fence. The first claim of a Run takes it from anybody: Kubernetes has just elected us. Later ones, after
// a failure, take it only if nobody else did meanwhile.
func (p *Publisher) claim(ctx context.Context, s *Store, again bool) error {
	key := prefixOf(p.cluster) + keyLeader
	for {
		resp, err := s.get(ctx, key)
		if err != nil {
			return fmt.Errorf("read the fence of cluster %s: %w", p.cluster, err)
		}
		found := int64(0)
		if len(resp.Kvs) > 0 {
			found = resp.Kvs[0].ModRevision
			holder, _, _ := parseFence(resp.Kvs[0].Value)
			if again && holder != p.id {
				return fmt.Errorf("publish cluster %s: %w", p.cluster, ErrFenced)
			}
		}
		p.fence = found
		err = p.commit(ctx, s)
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

// commit writes operations and moves the fence, if the fence is where we left it.
func (p *Publisher) commit(ctx context.Context, s *Store, ops ...clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	key := prefixOf(p.cluster) + keyLeader
	held := clientv3.Compare(clientv3.ModRevision(key), "=", p.fence)
	resp, err := s.client.Txn(ctx).If(held).
		Then(append(ops, clientv3.OpPut(key, fenceValue(p.id, p.fence)))...).Commit()
	if err != nil {
		return fmt.Errorf("write %d keys of cluster %s: %w", len(ops), p.cluster, err)
	}
	if !resp.Succeeded {
		return fmt.Errorf("write %d keys of cluster %s: %w", len(ops), p.cluster, errMoved)
	}
	p.fence = resp.Header.Revision
	return nil
}

// op is one key to put, or to delete if value is nil.
type op struct {
	key   string
	value []byte
}

// takeWork turns what is dirty into operations; complete tells whether there is a desired set that they complete. Before
// the first SetDesired there is nothing to do and nothing is complete.
func (p *Publisher) takeWork() (work []op, complete bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.desired == nil {
		return nil, false
	}
	for key := range p.dirty {
		want, wanted := p.desired[key]
		have, held := p.actual[key]
		switch {
		case wanted && !(held && bytes.Equal(want, have)):
			work = append(work, op{key, want})
		case !wanted && held:
			work = append(work, op{key, nil})
		}
	}
	clear(p.dirty)
	slices.SortFunc(work, compareOps)
	p.writing = len(work)
	p.countPending()
	return work, true
}

// cut says how many operations go into one transaction.
func cut(work []op) int {
	size := 0
	for i, o := range work {
		size += len(o.key) + len(o.value)
		if i == maxTxnOps || i > 0 && size > maxTxnBytes {
			return i
		}
	}
	return len(work)
}

// compareOps puts first what others refer to (an identity before its endpoints), and deletes it last.
func compareOps(a, b op) int {
	if (a.value == nil) != (b.value == nil) {
		if a.value == nil {
			return 1
		}
		return -1
	}
	byRank := cmp.Compare(record.Rank(a.key), record.Rank(b.key))
	if a.value == nil {
		byRank = -byRank
	}
	return cmp.Or(byRank, cmp.Compare(a.key, b.key))
}

// write commits work and notes it as the store's content. Keys outside the cluster's prefix can't be written whatever
// the caller desired: the store's key is built from the cluster's name.
func (p *Publisher) write(ctx context.Context, s *Store, work []op) error {
	ops := make([]clientv3.Op, 0, len(work))
	for _, o := range work {
		rest, ok := strings.CutPrefix(o.key, p.cluster+"/")
		if !ok {
			return fmt.Errorf("record key %q is not one of cluster %s", o.key, p.cluster)
		}
		if o.value == nil {
			ops = append(ops, clientv3.OpDelete(prefixOf(p.cluster)+rest))
		} else {
			ops = append(ops, clientv3.OpPut(prefixOf(p.cluster)+rest, string(o.value)))
		}
	}
	if err := p.commit(ctx, s, ops...); err != nil {
		return err
	}
	for _, o := range work {
		if o.value == nil {
			delete(p.actual, o.key)
		} else {
			p.actual[o.key] = o.value
		}
	}
	p.mu.Lock()
	p.writing -= len(work)
	p.mu.Unlock()
	return nil
}

// checkAndBeat looks whether all our keys are still there, then writes the heartbeat. A heartbeat says that the prefix is
// as we left it, and readers rely on it after a store's restore.
func (p *Publisher) checkAndBeat(ctx context.Context, s *Store) error {
	resp, err := s.get(ctx, prefixOf(p.cluster), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("count the keys of cluster %s: %w", p.cluster, err)
	}
	if want := int64(len(p.actual) + specialKeys); resp.Count != want {
		return fmt.Errorf("the store holds %d keys of cluster %s instead of %d: %w", resp.Count, p.cluster, want, errMoved)
	}
	return p.heartbeat(ctx, s)
}

// heartbeat writes the time, and the canary if it isn't there. The time only grows, whatever this machine's clock and the
// former leader's say, because readers take a smaller one for an older store.
func (p *Publisher) heartbeat(ctx context.Context, s *Store) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	if !now.After(p.lastBeat) {
		now = p.lastBeat.Add(time.Millisecond)
	}
	text := now.Format(time.RFC3339Nano)
	ops := []clientv3.Op{clientv3.OpPut(prefixOf(p.cluster)+keyHeartbeat, text)}
	if !p.canary {
		ops = append(ops, clientv3.OpPut(prefixOf(p.cluster)+keySynced, text))
	}
	if err := p.commit(ctx, s, ops...); err != nil {
		return err
	}
	p.lastBeat, p.canary = now, true
	p.succeeded()
	return nil
}

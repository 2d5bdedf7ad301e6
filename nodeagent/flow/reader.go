// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/flow"
)

// Source is where events come from.
type Source interface {
	// Next waits a moment and hands on what came.
	Next(func(time.Time, bpf.Event)) error
}

// Read names what the source tells and adds it to the ring, until ctx ends or the source fails.
func Read(ctx context.Context, source Source, namer *Namer, ring *Ring) error {
	type raw struct {
		at    time.Time
		event bpf.Event
	}
	var batch []raw
	for ctx.Err() == nil {
		batch = batch[:0]
		err := source.Next(func(at time.Time, e bpf.Event) { batch = append(batch, raw{at, e}) })
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		txn := namer.tables.DB.ReadTxn()
		namer.learn(time.Now())
		named := make([]flow.Flow, len(batch))
		for i, r := range batch {
			named[i] = namer.name(txn, r.at, r.event)
		}
		ring.Add(named...)
	}
	return nil
}

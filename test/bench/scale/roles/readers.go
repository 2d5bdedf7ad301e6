// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// ReadersConfig of agents beside the measured one, which only read.
type ReadersConfig struct {
	Relay RelayFiles
	Slow  int // take a batch a second
	Stuck int // take one batch and never another
	Brisk int // take all at once
}

// ReadersState counts what they did.
type ReadersState struct{ Batches, Received, Dials int64 }

func serveReaders() error {
	var w wire
	var batches atomic.Int64
	return process.Serve(process.Handlers{
		"start": process.Call(func(cfg ReadersConfig) (None, error) { return None{}, startReaders(cfg, &w, &batches) }),
		"state": process.Call(func(None) (ReadersState, error) {
			return ReadersState{batches.Load(), w.received.Load(), w.dials.Load()}, nil
		}),
	})
}

func startReaders(cfg ReadersConfig, w *wire, batches *atomic.Int64) error {
	for _, group := range []struct {
		name  string
		count int
		after func() // each batch
	}{
		{"slow", cfg.Slow, func() { time.Sleep(time.Second) }},
		{"stuck", cfg.Stuck, func() { select {} }},
		{"brisk", cfg.Brisk, func() {}},
	} {
		for i := range group.count {
			c, err := client(cfg.Relay, fmt.Sprintf("%s-%d", group.name, i), w, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			go func() {
				_ = c.Run(context.Background(), nil, func(*relayv1.Batch) error {
					batches.Add(1)
					group.after()
					return nil
				})
			}()
		}
	}
	return nil
}

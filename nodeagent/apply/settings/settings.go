// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package settings writes the datapath's configuration: the tunnel device, limits, and the policy epoch.
//
// It runs at the end of each pass. The epoch is raised after policy or an address's meaning changed in the kernel, so
// that running flows are judged anew, by rows that are all in place.
package settings

import (
	"context"
	"fmt"
	"slices"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Door is fl_config.
type Door interface {
	Settings() (bpf.Config, error)
	SetSettings(bpf.Config) error
}

// Writer keeps fl_config.
type Writer struct {
	tables *table.Tables
	door   Door
	events uint32 // per CPU and tick
	judge  []string
	owed   bool // rows changed, and the epoch was not raised yet
}

// New makes a writer. eventsPerTick limits what the datapath tells; 0 is no limit.
func New(t *table.Tables, door Door, eventsPerTick uint32) *Writer {
	return &Writer{
		tables: t, door: door, events: eventsPerTick,
		judge: []string{t.Entries.Name(), t.Subjects.Name(), t.Ranges.Name(), t.Addresses.Name()},
	}
}

// After is the hook at the end of a pass.
func (w *Writer) After(_ context.Context, outcomes []apply.Outcome) error {
	for _, o := range outcomes {
		if o.Written+o.Removed > 0 && slices.Contains(w.judge, o.Step) {
			w.owed = true
		}
	}
	have, err := w.door.Settings()
	if err != nil {
		return err
	}
	want := w.want(have)
	if want == have {
		return nil
	}
	if err := w.door.SetSettings(want); err != nil {
		return fmt.Errorf("raising the policy epoch to %d: %w", want.PolicyEpoch, err)
	}
	w.owed = false
	return nil
}

func (w *Writer) want(cfg bpf.Config) bpf.Config {
	for row := range w.tables.Settings.All() {
		cfg.ClusterID = row.Value.ClusterID
		if !row.Value.Encryption {
			cfg.TunnelIfindex, cfg.TunnelMTU = 0, 0
		}
	}
	// Without a row the device is not known yet; what an earlier run wrote is still true.
	for row := range w.tables.Tunnel.All() {
		cfg.TunnelIfindex, cfg.TunnelMTU = row.Value.Ifindex, row.Value.MTU
	}
	cfg.EventsPerTick = w.events
	if w.owed {
		cfg.PolicyEpoch++
	}
	return cfg
}

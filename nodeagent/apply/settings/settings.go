// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package settings writes the datapath's configuration apart from its epochs: the tunnel device and limits. It runs at
// the end of each pass.
package settings

import (
	"context"
	"fmt"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Driver of fl_config.
type Driver interface {
	Settings() (bpf.Config, error)
	SetSettings(bpf.Config) error
}

// Writer keeps fl_config. The epochs in it are package policy's, which writes them in the same goroutine.
type Writer struct {
	tables *table.Tables
	driver Driver
	events uint32 // per CPU and tick
}

// New makes a writer. eventsPerTick limits the events of the datapath; 0 is no limit.
func New(t *table.Tables, d Driver, eventsPerTick uint32) *Writer {
	return &Writer{tables: t, driver: d, events: eventsPerTick}
}

// Hook for the end of a pass.
func (w *Writer) Hook() apply.Hook { return apply.Hook{Name: "settings", Run: w.write} }

func (w *Writer) write(context.Context) error {
	have, err := w.driver.Settings()
	if err != nil {
		return fmt.Errorf("read the datapath's settings: %w", err)
	}
	if want := w.want(have); want != have {
		if err := w.driver.SetSettings(want); err != nil {
			return fmt.Errorf("write the datapath's settings: %w", err)
		}
	}
	return nil
}

// Written says that the datapath has the settings as they are wanted.
func (w *Writer) Written() bool {
	have, err := w.driver.Settings()
	return err == nil && w.want(have) == have
}

func (w *Writer) want(cfg bpf.Config) bpf.Config {
	for row := range w.tables.Settings.All() {
		if !row.Value.Encryption {
			cfg.TunnelIfindex, cfg.TunnelMTU = 0, 0
		}
	}
	// Without a row the device is not known yet; what an earlier run wrote is still true.
	for row := range w.tables.Tunnel.All() {
		cfg.TunnelIfindex, cfg.TunnelMTU = row.Value.Ifindex, row.Value.MTU
	}
	cfg.EventsPerTick = w.events
	return cfg
}

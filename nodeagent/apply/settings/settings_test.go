// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"errors"
	"testing"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

type door struct {
	cfg    bpf.Config
	writes int
	broken bool
}

func (d *door) Settings() (bpf.Config, error) { return d.cfg, nil }

func (d *door) SetSettings(cfg bpf.Config) error {
	if d.broken {
		return errors.New("refused")
	}
	d.cfg = cfg
	d.writes++
	return nil
}

func TestTheEpochFollowsWhatFlowsWereJudgedBy(t *testing.T) {
	tables, err := table.New()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tables.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := &door{cfg: bpf.Config{PolicyEpoch: 41, TunnelIfindex: 9, TunnelMTU: 1420}} // from an earlier run
	w := New(tables, d, 1000)
	pass := func(outcomes ...apply.Outcome) error { return w.After(context.Background(), outcomes) }

	if err := pass(); err != nil {
		t.Fatal(err)
	}
	if d.cfg != (bpf.Config{PolicyEpoch: 41, TunnelIfindex: 9, TunnelMTU: 1420, EventsPerTick: 1000}) {
		t.Errorf("after a start that changed nothing: %+v", d.cfg)
	}
	written := d.writes
	for _, step := range []string{"slot", "frontend", "hook", "iface"} {
		if err := pass(apply.Outcome{Step: step, Written: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if d.writes != written {
		t.Errorf("rows that judge nothing raised the epoch to %d", d.cfg.PolicyEpoch)
	}
	for i, o := range []apply.Outcome{
		{Step: "policy-entry", Written: 1}, {Step: "subject", Removed: 1}, {Step: "address", Written: 1}, {Step: "range", Removed: 1},
	} {
		if err := pass(o); err != nil {
			t.Fatal(err)
		}
		if want := uint32(42 + i); d.cfg.PolicyEpoch != want {
			t.Errorf("%s: epoch %d, want %d", o.Step, d.cfg.PolicyEpoch, want)
		}
	}

	// What could not be told is told later, though nothing changed meanwhile.
	d.broken = true
	if err := pass(apply.Outcome{Step: "subject", Written: 1}); err == nil {
		t.Error("a refused write is no error")
	}
	d.broken = false
	if err := pass(); err != nil || d.cfg.PolicyEpoch != 46 {
		t.Errorf("epoch %d after the door healed (%v), want 46", d.cfg.PolicyEpoch, err)
	}

	settings, tunnel := table.NewOwned(tables.ForPlan().Settings), table.NewOwned(tables.ForTunnel().Tunnel)
	set := func(encryption bool, device map[string]table.Device) {
		t.Helper()
		tables.Write(func(txn *table.Txn) {
			settings.Set(txn, "t", map[string]table.Setting{"config": {ClusterID: 3, Encryption: encryption}})
			tunnel.Set(txn, "t", device)
		})
		if err := pass(); err != nil {
			t.Fatal(err)
		}
	}
	set(true, map[string]table.Device{"tunnel": {Ifindex: 12, MTU: 1280}})
	if d.cfg.TunnelIfindex != 12 || d.cfg.TunnelMTU != 1280 || d.cfg.ClusterID != 3 || d.cfg.PolicyEpoch != 46 {
		t.Errorf("with another device: %+v", d.cfg)
	}
	set(false, nil)
	if d.cfg.TunnelIfindex != 0 {
		t.Errorf("without encryption: %+v", d.cfg)
	}
}

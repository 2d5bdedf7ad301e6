// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package settings

import (
	"context"
	"errors"
	"testing"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

type driver struct {
	cfg    bpf.Config
	writes int
	broken bool
}

func (d *driver) Settings() (bpf.Config, error) { return d.cfg, nil }

func (d *driver) SetSettings(cfg bpf.Config) error {
	if d.broken {
		return errors.New("refused")
	}
	d.cfg = cfg
	d.writes++
	return nil
}

func TestSettingsFollowTheTunnelAndLeaveTheEpochsAlone(t *testing.T) {
	tables := table.New()
	d := &driver{cfg: bpf.Config{PolicyEpoch: 41, FullEpoch: 40, TunnelIfindex: 9, TunnelMTU: 1420}} // from an earlier run
	w := New(tables, d, 1000)
	settings, tunnel := table.NewOwned(tables.ForPlan().Settings), table.NewOwned(tables.ForTunnel().Tunnel)
	for _, step := range []struct {
		name       string
		encryption bool
		device     map[string]table.Device
		broken     bool
		want       bpf.Config
		writes     int
	}{
		{"nothing is known yet", true, nil, false, bpf.Config{TunnelIfindex: 9, TunnelMTU: 1420}, 1},
		{"nothing changed", true, nil, false, bpf.Config{TunnelIfindex: 9, TunnelMTU: 1420}, 1},
		{"another device, refused", true, map[string]table.Device{"tunnel": {Ifindex: 12, MTU: 1280}}, true, bpf.Config{TunnelIfindex: 9, TunnelMTU: 1420}, 1},
		{"another device", true, map[string]table.Device{"tunnel": {Ifindex: 12, MTU: 1280}}, false, bpf.Config{TunnelIfindex: 12, TunnelMTU: 1280}, 2},
		{"no encryption", false, nil, false, bpf.Config{}, 3},
	} {
		tables.Write(func(txn *table.Txn) {
			settings.Set(txn, "t", map[string]table.Setting{"config": {Encryption: step.encryption}})
			tunnel.Set(txn, "t", step.device)
		})
		d.broken = step.broken
		if err := w.Hook().Run(context.Background()); (err != nil) != step.broken {
			t.Errorf("%s: error %v", step.name, err)
		}
		if w.Written() == step.broken {
			t.Errorf("%s: written: %t", step.name, w.Written())
		}
		step.want.PolicyEpoch, step.want.FullEpoch, step.want.EventsPerTick = 41, 40, 1000
		if d.cfg != step.want || d.writes != step.writes {
			t.Errorf("%s: %+v after %d writes, want %+v after %d", step.name, d.cfg, d.writes, step.want, step.writes)
		}
	}
}

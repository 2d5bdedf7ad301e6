// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Target holds rows, as package apply wants it.
type Target[K, V comparable] interface {
	Update(ctx context.Context, keys []K, values []V) []error
	Delete(ctx context.Context, keys []K) []error
	Have(ctx context.Context, visit func(keys []K, values []V)) error
}

func same(i uint32) uint32 { return i }

// Sets is fl_sets, an array: 0 is a bit that nobody has.
func (d *Datapath) Sets() Target[uint32, uint64] {
	return array[uint32, uint64]{Map[uint32, uint64]{bpf.MapSets, d.maps.Sets}, same, same}
}

// Classes is fl_classes, an array: a class that nobody has is in no set.
func (d *Datapath) Classes() Target[uint32, bpf.ClassSets] {
	return array[uint32, bpf.ClassSets]{Map[uint32, bpf.ClassSets]{bpf.MapClasses, d.maps.Classes}, same, same}
}

// Members is fl_identities: which class an identity is in.
func (d *Datapath) Members() Target[uint32, bpf.IdentityClass] {
	return Map[uint32, bpf.IdentityClass]{bpf.MapIdentities, d.maps.Identities}
}

// Groups is fl_groups.
func (d *Datapath) Groups() Target[bpf.GroupKey, bpf.GroupChunk] {
	return Map[bpf.GroupKey, bpf.GroupChunk]{bpf.MapGroups, d.maps.Groups}
}

// Subjects is fl_subjects, both banks.
func (d *Datapath) Subjects() Target[bpf.SubjectKey, bpf.Subject] {
	return Map[bpf.SubjectKey, bpf.Subject]{bpf.MapSubjects, d.maps.Subjects}
}

// AddressEpochs is fl_address_epochs, an array.
func (d *Datapath) AddressEpochs() Target[uint32, uint32] {
	return array[uint32, uint32]{Map[uint32, uint32]{bpf.MapAddressEpochs, d.maps.AddressEpochs}, same, same}
}

// Blocks is fl_blocks4 and fl_blocks6.
func (d *Datapath) Blocks() Target[netip.Prefix, uint32] {
	return byPrefix[uint32](bpf.MapBlocks4, bpf.MapBlocks6, d.maps.Blocks4, d.maps.Blocks6)
}

// Guards is fl_guard4 and fl_guard6.
func (d *Datapath) Guards() Target[netip.Prefix, uint32] {
	return byPrefix[uint32](bpf.MapGuard4, bpf.MapGuard6, d.maps.Guard4, d.maps.Guard6)
}

// Addresses is fl_ipcache4 and fl_ipcache6.
func (d *Datapath) Addresses() Target[netip.Addr, bpf.Remote] {
	return byAddress[bpf.Remote](bpf.MapIpcache4, bpf.MapIpcache6, d.maps.Ipcache4, d.maps.Ipcache6)
}

// Ranges is fl_cidr4 and fl_cidr6.
func (d *Datapath) Ranges() Target[netip.Prefix, bpf.Remote] {
	return byPrefix[bpf.Remote](bpf.MapCIDR4, bpf.MapCIDR6, d.maps.CIDR4, d.maps.CIDR6)
}

// Ifaces is fl_ifaces.
func (d *Datapath) Ifaces() Target[uint32, bpf.Iface] {
	return Map[uint32, bpf.Iface]{bpf.MapIfaces, d.maps.Ifaces}
}

// Locals is fl_locals4 and fl_locals6.
func (d *Datapath) Locals() Target[netip.Addr, bpf.Local] {
	return byAddress[bpf.Local](bpf.MapLocals4, bpf.MapLocals6, d.maps.Locals4, d.maps.Locals6)
}

// Peers is fl_peers.
func (d *Datapath) Peers() Target[uint16, bpf.Peer] {
	return array[uint16, bpf.Peer]{
		Map:   Map[uint32, bpf.Peer]{bpf.MapPeers, d.maps.Peers},
		index: func(i uint16) uint32 { return uint32(i) },
		key:   func(i uint32) uint16 { return uint16(i) },
	}
}

// Slots is fl_slots.
func (d *Datapath) Slots() Target[bpf.SlotKey, bpf.Backend] {
	return Map[bpf.SlotKey, bpf.Backend]{bpf.MapSlots, d.maps.Slots}
}

// Frontends is fl_services4 and fl_services6.
func (d *Datapath) Frontends() Target[table.Frontend, bpf.Service] {
	return byFrontend(d.maps.Services4, d.maps.Services6)
}

// Settings reads fl_config.
func (d *Datapath) Settings() (bpf.Config, error) {
	var cfg bpf.Config
	if err := d.maps.Config.Lookup(uint32(0), &cfg); err != nil {
		return cfg, fmt.Errorf("reading map %s: %w", bpf.MapConfig, err)
	}
	return cfg, nil
}

// SetSettings writes fl_config. Programs read the two epochs in one load and the other fields one by one.
func (d *Datapath) SetSettings(cfg bpf.Config) error {
	if err := d.maps.Config.Put(uint32(0), &cfg); err != nil {
		return fmt.Errorf("writing map %s: %w", bpf.MapConfig, err)
	}
	return nil
}

// Epochs reads the epochs in fl_config: of the policy in force, and the one before which flows are judged in full.
func (d *Datapath) Epochs() (policy, full uint32, err error) {
	cfg, err := d.Settings()
	return cfg.PolicyEpoch, cfg.FullEpoch, err
}

// SetEpochs writes both in one update and leaves the rest as it is. Nobody else may write fl_config meanwhile.
func (d *Datapath) SetEpochs(policy, full uint32) error {
	cfg, err := d.Settings()
	if err != nil {
		return err
	}
	cfg.PolicyEpoch, cfg.FullEpoch = policy, full
	return d.SetSettings(cfg)
}

// Fence returns when no program runs any more that began before the call.
func (d *Datapath) Fence() error { return d.maps.Fence() }

// Counters sums fl_metrics over all CPUs. Zero counters are left out.
func (d *Datapath) Counters() (map[Counter]bpf.Counter, error) {
	out := map[Counter]bpf.Counter{}
	for reason := range uint32(bpf.ReasonCount) {
		for hook := range uint32(bpf.HookCount) {
			var perCPU []bpf.Counter
			index := bpf.MetricIndex(bpf.Reason(reason), bpf.Hook(hook))
			if err := d.maps.Metrics.Lookup(index, &perCPU); err != nil {
				return nil, fmt.Errorf("reading counter %d of map %s: %w", index, bpf.MapMetrics, err)
			}
			if sum := total(perCPU); sum.Packets > 0 {
				out[Counter{bpf.Reason(reason), bpf.Hook(hook)}] = sum
			}
		}
	}
	return out, nil
}

// RuleCounters sums fl_rule_stats over all CPUs: new flows and denied packets. A rule that decided nothing for long may have lost
// its row.
func (d *Datapath) RuleCounters() (map[bpf.RuleKey]bpf.Counter, error) {
	out := map[bpf.RuleKey]bpf.Counter{}
	var key bpf.RuleKey
	var perCPU []bpf.Counter
	rows := d.maps.RuleStats.Iterate()
	for rows.Next(&key, &perCPU) {
		out[key] = total(perCPU)
	}
	if err := rows.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("reading map %s: %w", bpf.MapRuleStats, err)
	}
	return out, nil // packets that come meanwhile can end an iteration early
}

func total(perCPU []bpf.Counter) (sum bpf.Counter) {
	for _, c := range perCPU {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum
}

// Counter names a counter.
type Counter struct {
	Reason bpf.Reason
	Hook   bpf.Hook
}

// Name gives the counter's parts.
func (c Counter) Name() (bpf.Reason, bpf.Hook) { return c.Reason, c.Hook }

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// device is a device.
type device struct {
	peers []kernelwg.Status
	err   error
	reads int
}

func (d *device) Peers() ([]kernelwg.Status, error) {
	d.reads++
	return d.peers, d.err
}

func keyOf(index int) record.PublicKey { return record.PublicKey{byte(index), byte(index >> 8), 1} }

// wanted is a mesh of nodes in the tables, by index.
type wanted struct {
	tables *table.Tables
	plan   table.PlanWriters
	tunnel table.TunnelWriters
	peers  table.Feed[uint16, *topology.Peer]
	flags  table.Feed[uint16, bpf.Peer]
}

func newWanted() *wanted {
	t := table.New()
	return &wanted{t, t.ForPlan(), t.ForTunnel(), t.Peers.Follow(), t.PeerFlags.Follow()}
}

func (w *wanted) put(index int, ready bool) {
	w.tables.Write(func(txn *table.Txn) {
		w.plan.Peers.Put(txn, uint16(index), &topology.Peer{Cluster: fmt.Sprintf("c%d", index%250), Node: fmt.Sprint("n", index), PublicKey: keyOf(index)})
		row := bpf.Peer{}
		if ready {
			row.Flags = bpf.PeerReady
		}
		w.tunnel.PeerFlags.Put(txn, uint16(index), row)
	})
}

// settle has the kernel take the rows of an index, or refuse them.
func (w *wanted) settle(index int, refusal error) {
	if row, ok := w.tables.Peers.Get(uint16(index)); ok {
		w.peers.Settle([]uint16{row.Key}, []*topology.Peer{row.Value}, []error{refusal})
	}
	if row, ok := w.tables.PeerFlags.Get(uint16(index)); ok {
		w.flags.Settle([]uint16{row.Key}, []bpf.Peer{row.Value}, []error{refusal})
	}
}

// Whatever happens between two looks, the sum is the one over all peers as they are.
func TestTheSumFollowsThePeers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, d, now := newWanted(), &device{}, time.Unix(1_000_000, 0)
		sums := &tunnels{tables: w.tables}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			index := rapid.IntRange(0, 5).Draw(t, "index")
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				w.put(index, rapid.Bool().Draw(t, "ready"))
			case 1:
				w.settle(index, nil)
			case 2:
				w.settle(index, errors.New("refused"))
			case 3:
				d.peers = append(d.peers, kernelwg.Status{Peer: kernelwg.Peer{PublicKey: kernelwg.Key(keyOf(index))}, LastHandshake: now})
				now = now.Add(figuresAge)
			default:
				w.tables.Write(func(txn *table.Txn) { w.plan.Peers.Delete(txn, uint16(index)) })
			}
			got, err := sums.sum(d, now)
			if err != nil {
				t.Fatal(err)
			}
			want := report.SumTunnels((&tunnels{tables: w.tables}).peers(), now)
			for i := range want { // handshakes may be as old as the figures
				want[i].LatestHandshake, want[i].Connected = got[i].LatestHandshake, got[i].Connected
				for n := range want[i].Broken {
					want[i].Broken[n].LastHandshake = got[i].Broken[n].LastHandshake
				}
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
		}
	})
}

func TestPeersAreSummedUpOnlyWhenTheyChanged(t *testing.T) {
	w, d, now := newWanted(), &device{}, time.Unix(1_000_000, 0)
	for i := range 10 {
		w.put(i, true)
		w.settle(i, nil)
	}
	sums := &tunnels{tables: w.tables}
	look := func() []report.Tunnels {
		t.Helper()
		out, err := sums.sum(d, now)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := look()
	now = now.Add(figuresAge / 2)
	if again := look(); &again[0] != &first[0] || d.reads != 1 {
		t.Errorf("nothing changed, and the peers were looked at again; the device was read %d times", d.reads)
	}
	w.put(3, false)
	if changed := look(); changed[3].Ready != 0 || d.reads != 1 {
		t.Errorf("a peer is down: %+v; the device was read %d times", changed[3], d.reads)
	}
	w.settle(3, nil)
	look()
	now = now.Add(figuresAge)
	if look(); d.reads != 2 {
		t.Errorf("the figures are old, and the device was read %d times", d.reads)
	}
	d.err = errors.New("not ready")
	now = now.Add(figuresAge)
	if out, err := sums.sum(d, now); err == nil || len(out) != 10 {
		t.Errorf("a device that can't be read gives %d sums and error %v", len(out), err)
	}
}

func BenchmarkSumOf25000Peers(b *testing.B) {
	w, d, now := newWanted(), &device{}, time.Unix(1_000_000, 0)
	for i := range 25_000 {
		w.put(i, true)
		w.settle(i, nil)
		d.peers = append(d.peers, kernelwg.Status{Peer: kernelwg.Peer{PublicKey: kernelwg.Key(keyOf(i))}, LastHandshake: now})
	}
	for name, step := range map[string]time.Duration{"unchanged": 0, "figures": figuresAge} {
		b.Run(name, func(b *testing.B) {
			sums := &tunnels{tables: w.tables}
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(step)
				if _, err := sums.sum(d, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("changed", func(b *testing.B) {
		sums := &tunnels{tables: w.tables}
		b.ReportAllocs()
		for b.Loop() {
			sums.settled = false
			if _, err := sums.sum(d, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"errors"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// clingy lets no peer go while it is stuck.
type clingy struct {
	device
	stuck bool
	sets  int
}

func (d *clingy) SetPeer(p wireguard.Peer) error {
	d.sets++
	return d.device.SetPeer(p)
}

func (d *clingy) RemovePeer(k wireguard.Key) error {
	if d.stuck {
		return errors.New("the device is stuck")
	}
	return d.device.RemovePeer(k)
}

// follower brings peers to a device without a Runner.
type follower struct {
	device *clingy
	tables *table.Tables
	owned  *table.Owned[uint16, *topology.Peer]
	loop   *apply.Loop
	now    time.Time
}

func follow() *follower {
	f := &follower{device: &clingy{device: device{peers: map[wireguard.Key]wireguard.Peer{}}}, tables: table.New(), now: time.Unix(0, 0)}
	f.owned = table.NewOwned(f.tables.ForPlan().Peers)
	p := newPeers()
	p.device = f.device
	f.loop = apply.NewLoop(f.tables, apply.Follow(f.tables.Peers, apply.OneByOne[uint16, *topology.Peer](p)))
	return f
}

func (f *follower) want(t *testing.T, peers map[uint16]*topology.Peer) apply.Pass {
	t.Helper()
	f.tables.Write(func(txn *table.Txn) { f.owned.Set(txn, "test", peers) })
	return f.pass(t)
}

func (f *follower) pass(t *testing.T) apply.Pass {
	t.Helper()
	f.now = f.now.Add(time.Minute)
	return f.loop.Pass(t.Context(), f.now, func(string) bool { return false })
}

// A key that was replaced, or whose node is gone, leaves the device also if that refused to let it go at first.
func TestFormerKeysLeaveAtTheNextTry(t *testing.T) {
	for name, then := range map[string]map[uint16]*topology.Peer{"replaced": {1: peer(5)}, "replaced twice": {1: peer(6)}, "gone": nil} {
		t.Run(name, func(t *testing.T) {
			f := follow()
			f.want(t, map[uint16]*topology.Peer{1: peer(1)})
			f.device.stuck = true
			if name == "replaced twice" {
				f.want(t, map[uint16]*topology.Peer{1: peer(5)})
			}
			if p := f.want(t, then); p.Failing() != 1 {
				t.Fatalf("%d rows wait, want 1", p.Failing())
			}
			f.device.stuck = false
			f.pass(t)
			if keys := f.device.keys(); len(keys) != len(then) {
				t.Errorf("the device has %d peers, want %d", len(keys), len(then))
			}
		})
	}
}

// A look at the device while nothing has changed sets nothing; what somebody else took away comes back.
func TestPeersThatStrangersTakeComeBack(t *testing.T) {
	f := follow()
	f.want(t, map[uint16]*topology.Peer{1: peer(1), 2: peer(2)})
	f.device.sets = 0
	f.loop.Resync()
	if p := f.pass(t); f.device.sets != 0 || p.Outcomes[0].Written != 0 {
		t.Errorf("nothing changed, and %d peers were set", f.device.sets)
	}
	if err := f.device.RemovePeer(wireguard.Key(peer(2).PublicKey)); err != nil {
		t.Fatal(err)
	}
	f.loop.Resync()
	if f.pass(t); len(f.device.keys()) != 2 || f.device.sets != 1 {
		t.Errorf("the device has %d peers of 2, %d were set, want 1", len(f.device.keys()), f.device.sets)
	}
}

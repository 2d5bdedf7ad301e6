// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
)

const (
	podIfindex   = 1 // loopback: PROG_TEST_RUN wants an interface that exists
	podIdentity  = 100
	firstPeer    = 1000 // identity of peer 0
	peerIndex    = 5
	slotNoop     = 0
	slotMeasured = 1
	manyFlows    = 1 << 16
	tcpSYN       = 0x02
	tcpACK       = 0x10
	tcActUnspec  = -1
)

// bench is a loaded datapath with the wrapper in front of one program.
type bench struct {
	row   row
	peers int
	lines int
	maps  *bpf.Maps
	objs  benchObjects
	cfg   bpf.Config
	next  uint64
}

func measureRow(r row, peers, lines, rounds, repeat int) (one, many figure, err error) {
	maps, _, _, err := bpf.OpenMaps("", map[string]uint32{
		// A new flow must be new: its ports come around again after 64k
		// packets, when the table must have forgotten them.
		bpf.MapCT4: tableSize(r), bpf.MapCT6: tableSize(r),
	})
	if err != nil {
		return one, many, fmt.Errorf("creating maps: %w", err)
	}
	defer maps.Close()
	progs, err := bpf.LoadPrograms(maps)
	if err != nil {
		return one, many, fmt.Errorf("loading programs: %w", err)
	}
	defer progs.Close()
	b := &bench{row: r, peers: peers, lines: lines, maps: maps,
		cfg: bpf.Config{PolicyEpoch: 1, TunnelIfindex: podIfindex, TunnelMTU: 1420}}
	if err := loadBenchObjects(&b.objs, nil); err != nil {
		return one, many, fmt.Errorf("loading the wrapper: %w", err)
	}
	defer b.objs.Close()
	if err := b.fill(r.program(progs)); err != nil {
		return one, many, err
	}
	if one, err = b.measure(1, rounds, repeat); err != nil {
		return one, many, err
	}
	many, err = b.measure(manyFlows, rounds, repeat)
	return one, many, err
}

func tableSize(r row) uint32 {
	if r.newFlow {
		return manyFlows / 4
	}
	return 2 * manyFlows
}

// measure runs the rounds for a number of flows.
func (b *bench) measure(flows uint64, rounds, repeat int) (figure, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if b.row.moves != stays && flows == 1 {
		return figure{}, nil // there is no such thing as one flow's policy moving 100,000 times
	}
	if b.row.newFlow && flows == 1 {
		// One flow can't be new again and again: take one peer's ports.
		return b.measurePeers(1, 0, rounds, repeat)
	}
	if b.row.newFlow {
		flows = 0
	}
	if b.row.moves != stays {
		repeat = int(flows) // each flow meets the move once
	}
	return b.measurePeers(b.peers, flows, rounds, repeat)
}

func (b *bench) measurePeers(peers int, flows uint64, rounds, repeat int) (figure, error) {
	// Opens all flows and warms up what can be warm.
	if _, err := b.run(slotMeasured, peers, flows, max(repeat, manyFlows)); err != nil {
		return figure{}, err
	}
	var diffs, noops []float64
	var strays uint64
	for range rounds {
		noop, err := b.run(slotNoop, peers, flows, repeat)
		if err != nil {
			return figure{}, err
		}
		full, stray, err := b.round(peers, flows, repeat)
		if err != nil {
			return figure{}, err
		}
		strays += stray
		diffs, noops = append(diffs, full-noop), append(noops, noop)
	}
	f := summarize(diffs, noops)
	f.strays = strays
	return f, nil
}

// round measures the program once, and counts the packets that met another fate.
func (b *bench) round(peers int, flows uint64, repeat int) (ns float64, stray uint64, err error) {
	if err := b.moveEpoch(); err != nil {
		return 0, 0, err
	}
	before, err := b.counted()
	if err != nil {
		return 0, 0, err
	}
	ns, err = b.run(slotMeasured, peers, flows, repeat)
	if err != nil {
		return 0, 0, err
	}
	if b.row.want == bpf.ReasonNone {
		return ns, 0, nil // run has looked at the last packet's
	}
	after, err := b.counted()
	if err != nil {
		return 0, 0, err
	}
	// The flow table may refuse a packet when its lock is held too long, which happens on a busy machine. More than
	// that is no measurement. More are counted when a signal interrupted the run, which is then begun again.
	met := after - before
	stray = max(met, uint64(repeat)) - min(met, uint64(repeat))
	if stray > uint64(repeat/1000) {
		return 0, 0, fmt.Errorf("%d of %d packets were %s", met, repeat, b.row.want)
	}
	return ns, stray, nil
}

func (b *bench) moveEpoch() error {
	if b.row.moves == stays {
		return nil
	}
	b.cfg.PolicyEpoch++
	if b.row.moves == fullMoves {
		b.cfg.FullEpoch = b.cfg.PolicyEpoch
	}
	if err := b.maps.Config.Put(uint32(0), &b.cfg); err != nil {
		return fmt.Errorf("moving the epoch: %w", err)
	}
	return nil
}

// run sends repeat packets through the program in a slot.
func (b *bench) run(slot uint32, peers int, flows uint64, repeat int) (float64, error) {
	state := &benchBench{Next: b.next, Flows: flows, Peers: uint32(peers), Slot: slot}
	if b.row.toPod {
		state.ToPod = 1
	}
	if slot == slotMeasured && flows == 0 {
		b.next += uint64(repeat) // the no-op opens no flows
	}
	if err := b.objs.BenchState.Put(uint32(0), state); err != nil {
		return 0, fmt.Errorf("preparing the wrapper: %w", err)
	}
	data := b.row.frame()
	return perOp(repeat, func() error {
		action, err := b.objs.FlBench.Run(&ebpf.RunOptions{Data: data, Repeat: uint32(repeat)})
		if err == nil && b.row.want == bpf.ReasonNone && int32(action) != tcActUnspec {
			err = fmt.Errorf("the last packet's action was %d", int32(action))
		}
		return err
	})
}

// counted is how many packets met the fate that the row measures.
func (b *bench) counted() (uint64, error) {
	var perCPU []bpf.Counter
	if err := b.maps.Metrics.Lookup(bpf.MetricIndex(b.row.want, b.row.hook()), &perCPU); err != nil {
		return 0, fmt.Errorf("reading the counters: %w", err)
	}
	var n uint64
	for _, c := range perCPU {
		n += c.Packets
	}
	return n, nil
}

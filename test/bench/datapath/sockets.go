// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// Socket-address programs have no PROG_TEST_RUN, so they are measured at work:
// connect() on UDP sockets, which touches no network. Two figures:
//
//   - the program alone: the kernel's own accounting (BPF_ENABLE_STATS), minus
//     that of a no-op program attached to the same hook;
//   - added to connect(): CPU time of the thread for connect() to the service,
//     minus connect() straight to the backend from a socket without programs,
//     in turn. Statistics are off meanwhile.
//
// It all happens in a process, cgroup and network namespace of its own.

const connectsPerRound = 20_000

// socketRow is one way to connect.
type socketRow struct {
	name   string
	fresh  bool // each connect() by a socket of its own
	spread bool // to all services in turn, not one
	miss   bool // to no service
}

var socketRows = []socketRow{
	{name: "socket LB, hit, one service"},
	{name: "socket LB, hit, all services in turn", spread: true},
	{name: "socket LB, hit, a new socket each", fresh: true, spread: true},
	{name: "socket LB, no service", miss: true},
}

// socketBench has a cgroup with our program, one with a no-op, one with none.
type socketBench struct {
	maps     *bpf.Maps
	progs    *bpf.Programs
	objs     benchObjects
	groups   *cgroups
	services int
}

func measureSockets(out io.Writer, rounds int, counts []int) error {
	runtime.LockOSThread()
	groups, err := newCgroups()
	if err != nil {
		return fmt.Errorf("preparing cgroups: %w", err)
	}
	defer groups.remove()
	fmt.Fprintf(out, "\nsocket hooks: ns of CPU a connect(), median of %d rounds × %d (least-most)\n", rounds, connectsPerRound)
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "path\tservices\tprogram alone\tadded to connect()\tconnect() itself")
	for _, n := range counts {
		b := &socketBench{groups: groups, services: n}
		if err := b.print(w, rounds); err != nil {
			return fmt.Errorf("measuring sockets at %d services: %w", n, err)
		}
	}
	return w.Flush()
}

func (b *socketBench) print(w *tabwriter.Writer, rounds int) error {
	undo, err := b.load()
	if err != nil {
		return err
	}
	defer undo()
	for _, row := range socketRows {
		alone, err := b.programAlone(row, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		added, err := b.addedToConnect(row, rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%.0f\n", row.name, b.services, alone, added, added.noop)
	}
	return nil
}

func (b *socketBench) load() (undo func(), err error) {
	if b.maps, _, _, err = bpf.OpenMaps("", nil); err != nil {
		return nil, fmt.Errorf("creating maps: %w", err)
	}
	if b.progs, err = bpf.LoadPrograms(b.maps); err != nil {
		return nil, fmt.Errorf("loading programs: %w", err)
	}
	if err = loadBenchObjects(&b.objs, nil); err != nil {
		return nil, fmt.Errorf("loading the no-op: %w", err)
	}
	ours, err := link.AttachCgroup(link.CgroupOptions{Path: b.groups.ours, Attach: ebpf.AttachCGroupInet4Connect, Program: b.progs.Connect4})
	if err != nil {
		return nil, fmt.Errorf("attaching connect4: %w", err)
	}
	noop, err := link.AttachCgroup(link.CgroupOptions{Path: b.groups.noop, Attach: ebpf.AttachCGroupInet4Connect, Program: b.objs.FlBenchConnect4})
	if err != nil {
		return nil, fmt.Errorf("attaching the no-op: %w", err)
	}
	for i := range b.services {
		if err := b.addService(i); err != nil {
			return nil, fmt.Errorf("adding service %d: %w", i, err)
		}
	}
	return func() {
		ours.Close()
		noop.Close()
		b.objs.Close()
		b.progs.Close()
		b.maps.Close()
	}, nil
}

// vip is the address of service i: 10.96.0.0 plus i, port 80.
func vip(i int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: 80, Addr: [4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)}}
}

// backend is where service i leads: a port on loopback of its own.
func backend(i int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 1 + byte(i>>16), byte(i >> 8), byte(i)}}
}

func (b *socketBench) addService(i int) error {
	to := backend(i)
	slot := &bpf.Backend{ID: uint32(i + 1), Port: uint16(to.Port), Family: unix.AF_INET}
	copy(slot.Addr[:], to.Addr[:])
	if err := b.maps.Slots.Put(&bpf.SlotKey{Service: uint32(i + 1)}, slot); err != nil {
		return err
	}
	return b.maps.Services4.Put(
		&bpf.Service4Key{Addr: vip(i).Addr, Port: 80, Proto: unix.IPPROTO_UDP},
		&bpf.Service{ID: uint32(i + 1), Backends: 1})
}

// target is where connect number k of a row goes.
func (b *socketBench) target(row socketRow, k int, direct bool) *unix.SockaddrInet4 {
	i := 0
	if row.spread {
		i = k * 7919 % b.services // a prime: neighbours in time are not neighbours in the map
	}
	if row.miss || direct {
		return backend(i)
	}
	return vip(i)
}

// programAlone asks the kernel how long the program ran.
func (b *socketBench) programAlone(row socketRow, rounds int) (figure, error) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return figure{}, fmt.Errorf("enabling statistics: %w", err)
	}
	defer stats.Close()
	var diffs, noops []float64
	for range rounds {
		noop, err := b.accounted(row, b.groups.noop, b.objs.FlBenchConnect4)
		if err != nil {
			return figure{}, err
		}
		full, err := b.accounted(row, b.groups.ours, b.progs.Connect4)
		if err != nil {
			return figure{}, err
		}
		diffs, noops = append(diffs, full-noop), append(noops, noop)
	}
	return summarize(diffs, noops), nil
}

func (b *socketBench) accounted(row socketRow, group string, prog *ebpf.Program) (float64, error) {
	before, err := prog.Stats()
	if err != nil {
		return 0, fmt.Errorf("reading statistics: %w", err)
	}
	if err := b.connects(row, group, group == b.groups.noop); err != nil {
		return 0, err
	}
	after, err := prog.Stats()
	if err != nil {
		return 0, fmt.Errorf("reading statistics: %w", err)
	}
	runs := after.RunCount - before.RunCount
	if runs != connectsPerRound {
		return 0, fmt.Errorf("the program ran %d times for %d connects", runs, connectsPerRound)
	}
	return float64(after.Runtime-before.Runtime) / float64(runs), nil
}

// addedToConnect compares whole system calls.
func (b *socketBench) addedToConnect(row socketRow, rounds int) (figure, error) {
	var diffs, noops []float64
	for range rounds {
		bare, err := perOp(connectsPerRound, func() error { return b.connects(row, b.groups.bare, true) })
		if err != nil {
			return figure{}, err
		}
		full, err := perOp(connectsPerRound, func() error { return b.connects(row, b.groups.ours, false) })
		if err != nil {
			return figure{}, err
		}
		diffs, noops = append(diffs, full-bare), append(noops, bare)
	}
	return summarize(diffs, noops), nil
}

// connects does a round's connects from inside a cgroup, with one socket or
// with a new one each time.
func (b *socketBench) connects(row socketRow, group string, direct bool) error {
	if err := enter(group); err != nil { // a socket belongs where it was made
		return err
	}
	s := -1
	defer func() { _ = unix.Close(s) }()
	for k := range connectsPerRound {
		if s < 0 || row.fresh {
			if s >= 0 {
				_ = unix.Close(s)
			}
			var err error
			if s, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return fmt.Errorf("making a socket: %w", err)
			}
		}
		to := b.target(row, k, direct)
		if err := unix.Connect(s, to); err != nil {
			return fmt.Errorf("connecting to %v: %w", to.Addr, err)
		}
	}
	return nil
}

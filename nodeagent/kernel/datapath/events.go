// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/bpf"
)

// pollEvery is how long an event may lie in the ring. The datapath wakes nobody: a reader woken for each event would
// make a new flow cost several times as much.
const pollEvery = 50 * time.Millisecond

// Events reads the ring buffer.
type Events struct {
	reader *ringbuf.Reader
	record ringbuf.Record
}

// Events opens the ring buffer. Two readers would each see a part.
func (d *Datapath) Events() (*Events, error) {
	r, err := ringbuf.NewReader(d.maps.Events)
	if err != nil {
		return nil, fmt.Errorf("opening the ring buffer of map %s: %w", bpf.MapEvents, err)
	}
	return &Events{reader: r}, nil
}

// ErrClosed is what Next gives after Close.
var ErrClosed = ringbuf.ErrClosed

// Next waits a moment, then hands every event that lies in the ring to f, each with the time it happened.
func (e *Events) Next(f func(time.Time, bpf.Event)) error {
	e.reader.SetDeadline(time.Now().Add(pollEvery))
	boot, err := bootTime()
	if err != nil {
		return err
	}
	for {
		err := e.reader.ReadInto(&e.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the ring buffer: %w", err)
		}
		var event bpf.Event
		if _, err := binary.Decode(e.record.RawSample, binary.NativeEndian, &event); err != nil {
			continue // of another version's program, for the moment of an upgrade
		}
		f(boot.Add(time.Duration(event.TimeNs)), event)
	}
}

// bootTime is when the kernel's monotonic clock was zero. The wall clock may be set, so it is asked each time.
func bootTime() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &since); err != nil {
		return time.Time{}, fmt.Errorf("reading the monotonic clock: %w", err)
	}
	return time.Now().Add(-time.Duration(since.Nano())), nil
}

// Close ends a Next that waits.
func (e *Events) Close() error { return e.reader.Close() }

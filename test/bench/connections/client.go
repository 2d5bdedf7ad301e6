// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// figures are the medians of one round in one setup.
type figures struct {
	connect   time.Duration // connect() and close()
	exchange  time.Duration // connect(), one byte there and back, close()
	roundTrip time.Duration // one byte there and back on an open connection
}

// round measures a setup once, from a thread in its client's pod.
func (l *live) round(operations int) (f figures, err error) {
	err = l.inClient(func() error {
		if f.connect, err = l.measure(operations, l.connectAndClose); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		if f.exchange, err = l.measure(operations, l.connectAndAsk); err != nil {
			return fmt.Errorf("connect and ask: %w", err)
		}
		s, err := l.connect(0)
		if err != nil {
			return fmt.Errorf("open a connection: %w", err)
		}
		defer unix.Close(s)
		if f.roundTrip, err = l.measure(2*operations, func(int) error { return ask(s) }); err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		return nil
	})
	return f, err
}

// inClient runs f in the client's pod. Sockets belong to the cgroup in which they were made.
func (l *live) inClient(f func() error) error {
	if err := enter(l.cgroup); err != nil {
		return err
	}
	ns, err := os.Open(l.state.Client)
	if err != nil {
		return fmt.Errorf("find the client's namespace: %w", err)
	}
	defer ns.Close()
	return inside(netns.NsHandle(ns.Fd()), func() error {
		if err := firstOfAll(); err != nil {
			return err
		}
		return f()
	})
}

// firstOfAll lets this thread run before all that isn't as urgent: what else the machine does must not come between the two
// ends of a connection.
func firstOfAll() error {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("raise this thread's priority: %w", err)
	}
	return nil
}

// measure is the median of n operations.
func (l *live) measure(n int, f func(i int) error) (time.Duration, error) {
	for i := range max(n/20, 1) { // warm up what can be warm
		if err := f(i); err != nil {
			return 0, err
		}
	}
	all := make([]time.Duration, n)
	for i := range n {
		start := time.Now()
		if err := f(i); err != nil {
			return 0, err
		}
		all[i] = time.Since(start)
	}
	slices.Sort(all)
	return all[n/2], nil
}

// target of connection number i: services in turn, neighbours in time not being neighbours in any list.
func (l *live) target(i int) netip.AddrPort {
	if l.setup.Direct {
		return netip.AddrPortFrom(serverPod.Addr(), backendPort)
	}
	return netip.AddrPortFrom(frontend(i*7919%l.setup.Services), 80)
}

func (l *live) connect(i int) (int, error) { return dial(l.target(i)) }

func dial(to netip.AddrPort) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("make a socket: %w", err)
	}
	// A SYN that is dropped ends as a timeout within the second.
	if err := unix.SetsockoptInt(s, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 2000); err != nil {
		return -1, errors.Join(fmt.Errorf("set the socket's timeout: %w", err), unix.Close(s))
	}
	if err := unix.Connect(s, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return -1, errors.Join(fmt.Errorf("connect to %s: %w", to, err), unix.Close(s))
	}
	return s, nil
}

func (l *live) connectAndClose(i int) error {
	s, err := l.connect(i)
	if err != nil {
		return err
	}
	return unix.Close(s)
}

func (l *live) connectAndAsk(i int) error {
	s, err := l.connect(i)
	if err != nil {
		return err
	}
	return errors.Join(ask(s), unix.Close(s))
}

// ask sends a byte and reads it back.
func ask(s int) error {
	buf := []byte{1}
	if _, err := unix.Write(s, buf); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	n, err := unix.Read(s, buf)
	if err != nil || n != 1 {
		return fmt.Errorf("receive: %d bytes, %w", n, err)
	}
	return nil
}

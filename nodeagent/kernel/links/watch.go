// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/routes"
)

const (
	// settle bundles the dozens of messages that one starting pod causes.
	settle = 50 * time.Millisecond
	// bufferSize is for bursts; if it runs over, everything is read anew anyway.
	bufferSize = 1 << 20
	queue      = 256
)

// Watch calls changed once at the start and then whenever devices, addresses,
// routes or neighbours changed, until ctx ends. Many changes in a moment are
// one call, and calls never overlap. Changes of our own routes don't count.
func Watch(ctx context.Context, changed func()) error {
	for {
		err := watchOnce(ctx, changed)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, errOverrun) {
			return err
		}
		// Messages were lost: subscribe again, which calls changed again.
	}
}

var errOverrun = errors.New("the kernel's messages came faster than they were read")

func watchOnce(ctx context.Context, changed func()) error {
	s, err := subscribe()
	defer s.close()
	if err != nil {
		return err
	}
	seen := neighbours{}
	timer := time.NewTimer(0) // the first call
	defer timer.Stop()
	pending := true
	for {
		relevant := true
		var ok bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			pending = false
			changed()
			continue
		case _, ok = <-s.links:
		case _, ok = <-s.addrs:
		case u, open := <-s.routes:
			relevant, ok = u.Protocol != routes.Protocol, open
		case u, open := <-s.neighs:
			relevant, ok = open && seen.changed(u), open
		}
		if !ok {
			return errOverrun
		}
		if relevant && !pending {
			pending = true
			timer.Reset(settle)
		}
	}
}

type streams struct {
	links  <-chan netlink.LinkUpdate
	addrs  <-chan netlink.AddrUpdate
	routes <-chan netlink.RouteUpdate
	neighs <-chan netlink.NeighUpdate

	done  chan struct{}
	drain []func()
}

// close ends the streams. Their readers may be in the middle of handing over a
// message: it is taken from them, or they would stand there for ever.
func (s *streams) close() {
	close(s.done)
	for _, drain := range s.drain {
		go drain()
	}
}

// subscribe opens the four streams. A stream that breaks closes its channel.
func subscribe() (*streams, error) {
	s := &streams{done: make(chan struct{})}
	quiet := func(error) {} // the closed channel says it
	err := errors.Join(
		open(s, &s.links, func(ch chan netlink.LinkUpdate) error {
			return netlink.LinkSubscribeWithOptions(ch, s.done, netlink.LinkSubscribeOptions{ErrorCallback: quiet, ReceiveBufferSize: bufferSize})
		}),
		open(s, &s.addrs, func(ch chan netlink.AddrUpdate) error {
			return netlink.AddrSubscribeWithOptions(ch, s.done, netlink.AddrSubscribeOptions{ErrorCallback: quiet, ReceiveBufferSize: bufferSize})
		}),
		open(s, &s.routes, func(ch chan netlink.RouteUpdate) error {
			return netlink.RouteSubscribeWithOptions(ch, s.done, netlink.RouteSubscribeOptions{ErrorCallback: quiet, ReceiveBufferSize: bufferSize})
		}),
		open(s, &s.neighs, func(ch chan netlink.NeighUpdate) error {
			return netlink.NeighSubscribeWithOptions(ch, s.done, netlink.NeighSubscribeOptions{ErrorCallback: quiet, ReceiveBufferSize: bufferSize})
		}),
	)
	if err != nil {
		return s, fmt.Errorf("subscribing to the kernel's network changes: %w", err)
	}
	return s, nil
}

func open[T any](s *streams, to *<-chan T, subscribe func(chan T) error) error {
	ch := make(chan T, queue)
	if err := subscribe(ch); err != nil {
		return err
	}
	*to = ch
	s.drain = append(s.drain, func() {
		for range ch { //nolint:revive // only to empty it
		}
	})
	return nil
}

type neighbourKey struct {
	device int
	ip     netip.Addr
}

// neighbours remembers who had which MAC address. The kernel reports each
// confirmation of a neighbour, several a minute; only a new address matters.
type neighbours map[neighbourKey]string

func (n neighbours) changed(u netlink.NeighUpdate) bool {
	ip, ok := netip.AddrFromSlice(u.IP)
	if !ok {
		return true // a forwarding database's entry: a port learned or forgot a MAC address
	}
	key := neighbourKey{u.LinkIndex, ip.Unmap()}
	mac := string(u.HardwareAddr)
	if u.Type == unix.RTM_DELNEIGH || mac == "" || u.State&usable == 0 {
		_, had := n[key]
		delete(n, key)
		return had
	}
	before, had := n[key]
	n[key] = mac
	return !had || before != mac
}

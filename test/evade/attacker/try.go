// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

const (
	patience   = 1200 * time.Millisecond // a lost SYN is sent again after a second: what passes late passes
	rawWait    = 700 * time.Millisecond
	atOnce     = 24
	anyPort    = 20000
	anyPortTop = 20000
)

// attempt is a job that is being done.
type attempt struct {
	job.Job
	to, own, claim, over netip.Addr
	wire                 *wire // nil without NET_RAW
	next                 net.HardwareAddr
	answered             string
}

// technique is what can be tried with packets, and with sockets.
type technique func(context.Context, *attempt) error

// try does jobs, many at once, and tells of each what came of it.
func try(ctx context.Context, _ []string) error {
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		slots = make(chan struct{}, atOnce)
		out   = json.NewEncoder(os.Stdout)
		in    = json.NewDecoder(os.Stdin)
	)
	for {
		var j job.Job
		err := in.Decode(&j)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read a job: %w", err)
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r := do(ctx, j)
			mu.Lock()
			defer mu.Unlock()
			_ = out.Encode(r) // nobody reads: nobody cares
		})
	}
	wg.Wait()
	return nil
}

func do(ctx context.Context, j job.Job) job.Result {
	r := job.Result{Token: j.Token}
	a, err := prepare(j)
	if err == nil {
		err = a.do(ctx)
		r.Answered = a.answered
	}
	if err != nil {
		r.Err = err.Error()
		r.Refused = errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	}
	return r
}

func prepare(j job.Job) (*attempt, error) {
	a := &attempt{Job: j}
	if a.FromPort == 0 {
		a.FromPort = uint16(anyPort + rand.IntN(anyPortTop)) //nolint:gosec // no secret
	}
	var err error
	if a.to, err = netip.ParseAddr(j.To); err != nil {
		return nil, fmt.Errorf("target %q: %w", j.To, err)
	}
	s, err := self()
	if err != nil {
		return nil, err
	}
	for _, text := range s.Addrs {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Is4() == a.to.Is4() && !a.own.IsValid() {
			a.own = addr
		}
	}
	a.claim = a.own
	for _, given := range []struct {
		text string
		addr *netip.Addr
	}{{j.Claim, &a.claim}, {j.Over, &a.over}} {
		if given.text == "" {
			continue
		}
		if *given.addr, err = netip.ParseAddr(given.text); err != nil {
			return nil, fmt.Errorf("address %q: %w", given.text, err)
		}
	}
	return a, nil
}

func (a *attempt) do(ctx context.Context) error {
	if t := sockets[a.How]; t != nil {
		return t(ctx, a)
	}
	t := packets[a.How]
	if t == nil {
		return fmt.Errorf("there is no technique %q", a.How)
	}
	if !a.own.IsValid() {
		return fmt.Errorf("the pod has no address of the family of %s", a.to)
	}
	w, err := openWire()
	if err != nil {
		return err
	}
	defer w.close()
	a.wire = w
	if err := a.findNext(); err != nil {
		return err
	}
	if err := t(ctx, a); err != nil {
		return err
	}
	return w.receive(time.Now().Add(rawWait), a.answer)
}

func (a *attempt) findNext() (err error) {
	switch a.MAC {
	case "":
		a.next, err = hardware(a.to)
	case "gateway":
		a.next, err = hardware(netip.MustParseAddr("192.0.2.1"))
	case "broadcast":
		a.next = broadcast
	default:
		a.next, err = net.ParseMAC(a.MAC)
	}
	if err != nil {
		return fmt.Errorf("find whom to hand it to: %w", err)
	}
	if a.Mine == "" {
		return nil
	}
	if a.wire.mac, err = net.ParseMAC(a.Mine); err != nil {
		return fmt.Errorf("find whom to pose as: %w", err)
	}
	return nil
}

// answer notes whether a frame answers what was sent.
func (a *attempt) answer(f []byte) bool {
	p, ok := parseIP(f)
	if !ok || p.src != a.to || p.dst != a.own {
		return false
	}
	switch p.proto {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		if len(p.payload) < 4 || binary.BigEndian.Uint16(p.payload) != a.Port || binary.BigEndian.Uint16(p.payload[2:]) != a.FromPort {
			return false
		}
		if p.proto == unix.IPPROTO_TCP && len(p.payload) > 13 && p.payload[13]&4 != 0 {
			return false // the node says that nothing listens at one of its addresses; pods see themselves what arrives
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		if len(p.payload) < 1 || p.payload[0] != 0 && p.payload[0] != 129 || !bytes.Contains(p.payload, []byte(a.Token)) {
			return false // no echo of ours
		}
	}
	a.answered = describe(f)
	return true
}

// send hands a packet to the next hop.
func (a *attempt) send(p ipPacket) error { return a.sendIP(p.bytes()) }

func (a *attempt) sendIP(b []byte) error {
	return a.wire.send(ethernet(a.next, a.wire.mac, a.etherType(), b))
}

func (a *attempt) etherType() uint16 {
	if a.to.Is6() {
		return unix.ETH_P_IPV6
	}
	return unix.ETH_P_IP
}

// packet is one from the claimed address to the target.
func (a *attempt) packet(proto byte, payload []byte) ipPacket {
	return ipPacket{src: a.claim, dst: a.to, proto: proto, id: uint16(rand.IntN(1 << 16)), payload: payload} //nolint:gosec // no secret
}

func (a *attempt) data() []byte { return []byte(a.Token) }

// udp is a datagram with the token to the target's port.
func (a *attempt) udp() []byte { return udp(a.claim, a.to, a.FromPort, a.Port, a.data()) }

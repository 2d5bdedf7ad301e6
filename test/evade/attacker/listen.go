// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

// diary is where the pod tells what it has seen, to itself alone: a pod is asked by commands that run in it.
const diary = "127.0.0.1:9999"

var tokens = regexp.MustCompile(`EVADE-[0-9a-f]{10}`)

// book keeps which tokens arrived, each once.
type book struct {
	mu   sync.Mutex
	seen map[string]job.Sighting
}

func (b *book) note(data []byte, what func() string) {
	for _, found := range tokens.FindAll(data, -1) {
		s := job.Sighting{Token: string(found), What: what(), At: time.Now()}
		// The same token at another port is another story: some attacks show an open one as well.
		_, port, _ := strings.Cut(s.What, portsAre)
		b.mu.Lock()
		if _, known := b.seen[s.Token+port]; !known {
			b.seen[s.Token+port] = s
		}
		b.mu.Unlock()
	}
}

func (b *book) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	all := make([]job.Sighting, 0, len(b.seen))
	for _, s := range b.seen {
		all = append(all, s)
	}
	b.mu.Unlock()
	_ = json.NewEncoder(w).Encode(all) // a reader that is gone doesn't need it
}

// listen serves ports, and looks at every frame that arrives, whoever it is for: an attack that the pod's own kernel throws away
// got through all the same.
func listen(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("listen", flag.ExitOnError)
	tcpPorts := flags.String("tcp", "8080,9090", "TCP ports")
	udpPorts := flags.String("udp", "8081,9091", "UDP ports")
	frames := flags.Bool("frames", true, "look at all frames of the interface")
	_ = flags.Parse(args) // ExitOnError

	b := &book{seen: map[string]job.Sighting{}}
	failed := make(chan error, 16)
	for port := range strings.SplitSeq(*tcpPorts, ",") {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return fmt.Errorf("listen on TCP %s: %w", port, err)
		}
		go func() { failed <- b.lines(l) }()
	}
	for port := range strings.SplitSeq(*udpPorts, ",") {
		c, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			return fmt.Errorf("listen on UDP %s: %w", port, err)
		}
		go func() { failed <- b.datagrams(c) }()
	}
	if *frames {
		w, err := openWire()
		switch {
		case errors.Is(err, unix.EPERM): // the attacker without capabilities
		case err != nil:
			return err
		default:
			go func() { failed <- w.receive(time.Now().AddDate(1, 0, 0), b.frame) }()
		}
	}
	server := &http.Server{Addr: diary, Handler: b, ReadHeaderTimeout: 10 * time.Second}
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return fmt.Errorf("listen: %w", err)
	case <-ctx.Done():
		return server.Close()
	}
}

// lines sends every line back.
func (b *book) lines(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			defer c.Close()
			for s := bufio.NewScanner(c); s.Scan(); {
				b.note(s.Bytes(), func() string { return fmt.Sprintf("TCP %s > %s", c.RemoteAddr(), c.LocalAddr()) })
				if _, err := fmt.Fprintf(c, "%s\n", s.Text()); err != nil {
					return
				}
			}
		}()
	}
}

func (b *book) datagrams(c net.PacketConn) error {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("read a datagram: %w", err)
		}
		b.note(buf[:n], func() string { return fmt.Sprintf("UDP %s > %s", from, c.LocalAddr()) })
		_, _ = c.WriteTo(buf[:n], from) // may be nobody
	}
}

func (b *book) frame(f []byte) bool {
	b.note(f, func() string { return describe(f) })
	return false
}

// portsAre comes before the ports in a description.
const portsAre = ", ports "

// describe says in a line what a frame is.
func describe(f []byte) string {
	if len(f) < 14 {
		return fmt.Sprintf("%d bytes", len(f))
	}
	head := fmt.Sprintf("%s > %s", net.HardwareAddr(f[6:12]), net.HardwareAddr(f[:6]))
	p, ok := parseIP(f)
	if !ok {
		return fmt.Sprintf("frame %s type %#04x, %d bytes", head, binary.BigEndian.Uint16(f[12:]), len(f))
	}
	if p.proto == unix.IPPROTO_DSTOPTS && p.dst.Is6() && len(p.payload) > 2 {
		if size := int(p.payload[1])*8 + 8; size < len(p.payload) {
			p.proto, p.payload = p.payload[0], p.payload[size:]
		}
	}
	ports := ""
	if (p.proto == unix.IPPROTO_TCP || p.proto == unix.IPPROTO_UDP) && len(p.payload) >= 4 {
		ports = fmt.Sprintf("%s%d > %d", portsAre, binary.BigEndian.Uint16(p.payload), binary.BigEndian.Uint16(p.payload[2:]))
	}
	return fmt.Sprintf("%d bytes %s: %s > %s protocol %d%s", len(f), head, p.src, p.dst, p.proto, ports)
}

// parseIP reads an IP header behind an Ethernet one.
func parseIP(f []byte) (ipPacket, bool) {
	if len(f) < 14+20 {
		return ipPacket{}, false
	}
	b := f[14:]
	switch binary.BigEndian.Uint16(f[12:]) {
	case unix.ETH_P_IP:
		size := int(b[0]&15) * 4
		if len(b) < size || size < 20 {
			return ipPacket{}, false
		}
		return ipPacket{src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])), proto: b[9], payload: b[size:]}, true
	case unix.ETH_P_IPV6:
		if len(b) < 40 {
			return ipPacket{}, false
		}
		return ipPacket{src: netip.AddrFrom16([16]byte(b[8:24])), dst: netip.AddrFrom16([16]byte(b[24:40])), proto: b[6], payload: b[40:]}, true
	}
	return ipPacket{}, false
}

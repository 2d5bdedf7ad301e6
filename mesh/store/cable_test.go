// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// cable is a TCP connection to the store that a test can cut.
type cable struct {
	t      *testing.T
	listen net.Listener
	target string

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newCable(t *testing.T, endpoint string) *cable {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &cable{t: t, listen: l, target: strings.TrimPrefix(endpoint, "https://"), conns: map[net.Conn]bool{}}
	k.wg.Go(k.serve)
	t.Cleanup(func() {
		_ = l.Close()
		k.cut()
		k.wg.Wait()
	})
	return k
}

func (k *cable) endpoint() string { return "https://" + k.listen.Addr().String() }

func (k *cable) serve() {
	for {
		in, err := k.listen.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", k.target)
		if err != nil || !k.hold(in, out) {
			_ = in.Close()
			if out != nil {
				_ = out.Close()
			}
			continue
		}
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			k.wg.Go(func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
			})
		}
	}
}

func (k *cable) hold(conns ...net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range conns {
		k.conns[c] = true
	}
	return !k.down
}

func (k *cable) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = true
	for c := range k.conns {
		_ = c.Close()
	}
	clear(k.conns)
}

func (k *cable) restore() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.down = false
}

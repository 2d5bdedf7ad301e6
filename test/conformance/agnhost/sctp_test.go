// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

func TestPackets(t *testing.T) {
	for _, p := range []packet{
		{from: 40000, to: 9003, chunk: chunkInit, initTag: 7},
		{from: 9003, to: 40000, tag: 7, chunk: chunkInitAck, initTag: 9},
		{from: 40000, to: 9003, tag: 9, chunk: chunkAbort},
	} {
		b := p.marshal()
		if got, ok := parse(b); !ok || got != p {
			t.Errorf("%+v, %t, want %+v", got, ok, p)
		}
		b[0] ^= 1
		if _, ok := parse(b); ok {
			t.Errorf("%+v: the checksum doesn't matter", p)
		}
	}
	if _, ok := parse(nil); ok {
		t.Error("nothing is a packet")
	}
}

// A port that is served answers a handshake, in both families; another one doesn't.
func TestHandshake(t *testing.T) {
	go func() { _ = serve(map[string]string{"39003": "x"}) }() // ends with the test
	for target, want := range map[string]bool{"127.0.0.1:39003": true, "[::1]:39003": true, "127.0.0.1:39004": false} {
		timeout := 10 * time.Second
		if !want {
			timeout = time.Second
		}
		if got, err := connect(target, timeout); err != nil || got != want {
			t.Errorf("%s: %t, %v, want %t", target, got, err, want)
		}
	}
}

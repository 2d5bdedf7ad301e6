// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// Each connection of a batch is answered for: what serves and what doesn't; and line by line.
func TestWorker(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(buf[:n], from)
		}
	}()
	// Nobody reads it: as if the packet were dropped.
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := func(a net.Addr) string {
		_, p, _ := net.SplitHostPort(a.String())
		return p
	}
	want := map[string]bool{}
	var requests []string
	add := func(key, protocol, host, port string, answered bool) {
		want[key] = answered
		requests = append(requests, fmt.Sprintf(`{"Key":%q,"Protocol":%q,"Host":%q,"Port":%s}`, key, protocol, host, port))
	}
	add("tcp", "TCP", "127.0.0.1", port(tcp.Addr()), true)
	add("tcp refused", "TCP", "127.0.0.1", "1", false)
	add("udp", "UDP", "127.0.0.1", port(udp.LocalAddr()), true)
	add("udp refused", "UDP", "127.0.0.1", "1", false)
	add("udp silent", "UDP", "127.0.0.1", port(silent.LocalAddr()), false)
	add("no such name", "TCP", "nobody.invalid", "1", false)
	add("no such protocol", "ICMP", "127.0.0.1", "1", false)
	line := `{"Seconds":1,"Batch":{"Namespace":"x","Requests":[` + strings.Join(requests, ",") + "]}}\n"
	var out bytes.Buffer
	if err := work(strings.NewReader(line+line), &out); err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(answers) != 2 {
		t.Fatalf("%d answers to 2 batches: %s", len(answers), out.String())
	}
	for _, answer := range answers {
		var all []tried
		if err := json.Unmarshal([]byte(answer), &all); err != nil || len(all) != len(want) {
			t.Fatalf("%d results for %d requests: %v", len(all), len(want), err)
		}
		for _, r := range all {
			if got := r.Error == ""; got != want[r.Request.Key] {
				t.Errorf("%s: answered %t (%s), want %t", r.Request.Key, got, r.Error, want[r.Request.Key])
			}
		}
	}
	for _, bad := range []string{"what?\n", `{"Batch":{}}` + "\n"} {
		if err := work(strings.NewReader(bad), &out); err == nil {
			t.Errorf("%q is answered", bad)
		}
	}
}

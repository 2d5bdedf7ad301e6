// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// marker is a text that the clients send; whoever can read it on a wire reads plaintext.
const marker = "FAIRLEAD-PLAINTEXT-MARKER"

// WireIsEncrypted captures the WAN while pods talk, and the client's node as the control: a capture that could not
// find the marker where it is certainly in the clear would prove nothing.
func (w *World) WireIsEncrypted(ctx context.Context) error {
	w.Title("What the WAN sees of it")
	dir, err := os.MkdirTemp("", "fairlead-capture-")
	if err != nil {
		return fmt.Errorf("make a folder for captures: %w", err)
	}
	defer os.RemoveAll(dir)
	client, err := w.podNode(ctx, East, "tiefighter")
	if err != nil {
		return err
	}
	captures := map[string]chan error{}
	for _, place := range []string{"wan", client} {
		done := make(chan error, 1)
		captures[place] = done
		go func() {
			// timeout ends tcpdump with SIGINT, so that it flushes; 124 is its way to say that it did.
			_, err := w.OnNode(ctx, place, "sh", "-c",
				fmt.Sprintf("timeout -s INT 5 tcpdump -i any -s 0 -U -w %s 2>/dev/null; test $? -eq 124", filepath.Join(dir, place+".pcap")))
			done <- err
		}()
	}
	time.Sleep(1500 * time.Millisecond) // tcpdump says nothing when it is ready
	out, err := w.Sample(ctx, East, "tiefighter", "call", "--method", "POST", "--body", strings.Repeat(marker+" ", 20),
		"--count", "20", "--interval", "50ms", deathstar+"/v1/request-landing")
	if err != nil {
		return Unexpected("20 answers while capturing", out+err.Error(), "kubectl fairlead observe")
	}
	for place, done := range captures {
		if err := <-done; err != nil {
			return fmt.Errorf("capture on %s: %w", place, err)
		}
	}
	return w.judge(ctx, filepath.Join(dir, "wan.pcap"), filepath.Join(dir, client+".pcap"), client)
}

func (w *World) judge(ctx context.Context, wan, control, client string) error {
	podTraffic := "net 10.14.0.0/16 or net 10.24.0.0/16 or net fd00:14::/48 or net fd00:24::/48"
	tunnel, err := w.count(ctx, wan, "udp port 51871")
	if err != nil {
		return err
	}
	bare, err := w.count(ctx, wan, podTraffic)
	if err != nil {
		return err
	}
	onWire, err := occurrences(wan)
	if err != nil {
		return err
	}
	atHome, err := occurrences(control)
	if err != nil {
		return err
	}
	sample, err := w.run(ctx, "tcpdump", "-nn", "-r", wan, "-c", "3", "udp port 51871")
	if err != nil {
		return err
	}
	w.Show(sample)
	w.Say("on the WAN: %d WireGuard datagrams, %d packets with a pod's address, %d times the marker that the client sent", tunnel, bare, onWire)
	w.Say("on the client's own node %s, as a control: %d times the marker", client, atHome)
	if tunnel == 0 || bare != 0 || onWire != 0 || atHome == 0 {
		return Unexpected("datagrams > 0, pod packets = 0, marker on the WAN = 0, marker at home > 0",
			fmt.Sprintf("%d, %d, %d, %d", tunnel, bare, onWire, atHome), "lab exec --node wan -- tcpdump -i any")
	}
	w.Passed("no plaintext byte left for the other cluster")
	return nil
}

func (w *World) count(ctx context.Context, file, filter string) (int, error) {
	out, err := w.run(ctx, "tcpdump", "-nn", "-r", file, filter)
	if err != nil {
		return 0, fmt.Errorf("count %q: %w", filter, err)
	}
	return strings.Count(out, "\n"), nil
}

func occurrences(file string) (int, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read capture: %w", err)
	}
	return strings.Count(string(content), marker), nil
}

func (w *World) podNode(ctx context.Context, cluster, deployment string) (string, error) {
	out, err := w.Kubectl(ctx, cluster, "get", "pods", "-n", "starwars", "-l", "class="+deployment, "-o", "jsonpath={.items[0].spec.nodeName}")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(out), nil
}

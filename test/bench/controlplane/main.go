// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Controlplane measures how long a change in one cluster takes to reach the
// kernel of a node in another, on a running lab instance with Fairlead.
//
// A Service without selector, global in both clusters, gets one endpoint in
// west, whose address (within west's pod range) changes in each round. The
// clock starts when west's API server has answered the write, and stops
//
//   - for "in the shared etcd", when a watch of west's slice brings it;
//   - for "in the map of east-1", when the frontend and slot that east-1's
//     datapath reads hold the new address. The pinned maps are opened in the
//     node's mount namespace and polled.
//
// One change is under way at a time, so this is latency, not throughput.
//
//	go run ./test/bench/controlplane [-instance demo] [-rounds 100] [-node east-1]
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/hack/lab/instance"
)

// poll is the pause between two looks at the map: the figures' resolution.
const poll = 200 * time.Microsecond

func main() {
	name := flag.String("instance", "", "lab instance; the first with Fairlead in it if empty")
	rounds := flag.Int("rounds", 100, "changes to measure")
	node := flag.String("node", "east-1", "node of cluster east whose maps are watched")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	err := run(ctx, *name, *node, *rounds)
	if errors.Is(err, errNoLab) {
		// A bench of many parts goes on; this figure just needs clusters.
		fmt.Println("control plane: not measured:", err)
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "control plane bench:", err)
		os.Exit(1)
	}
}

var errNoLab = errors.New("no lab instance with Fairlead is up; make demo leaves one")

func run(ctx context.Context, name, node string, rounds int) error {
	lab, kernel, err := open(name, node)
	if err != nil {
		return err
	}
	defer kernel.close()
	w, err := newWorkload(ctx, lab)
	if err != nil {
		return err
	}
	defer w.remove()
	etcd, err := watchStore(ctx, lab)
	if err != nil {
		return err
	}
	defer etcd.close()

	var published, visible []time.Duration
	for round := range rounds + warmup {
		address := w.address(round)
		answered, err := w.move(ctx, address)
		if err != nil {
			return err
		}
		inMap, err := kernel.await(ctx, w.frontend, address)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		inStore, err := etcd.await(ctx, address)
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if round >= warmup {
			visible = append(visible, inMap.Sub(answered))
			published = append(published, inStore.Sub(answered))
		}
	}
	fmt.Printf("%s; lab instance %s\n", machine(), lab.Topology.Name)
	fmt.Printf("endpoint change in west, %d rounds after %d to warm up, one at a time; from the API server's answer until …\n\n", rounds, warmup)
	return printTable(map[string][]time.Duration{"in the shared etcd": published, "in the map of " + node: visible})
}

// warmup rounds aren't counted: the first creates what the others change.
const warmup = 3

// open finds the instance and the node's maps.
func open(name, node string) (*instance.Lab, *nodeMaps, error) {
	names := []string{name}
	if name == "" {
		var err error
		if names, err = instance.Names(); err != nil {
			return nil, nil, fmt.Errorf("list lab instances: %w", err)
		}
	}
	why := errNoLab
	for _, n := range names {
		lab, err := instance.Open(n)
		if err != nil {
			why = fmt.Errorf("%w (%s: %w)", errNoLab, n, err)
			continue
		}
		kernel, err := openMaps(lab, node)
		if err == nil {
			return lab, kernel, nil
		}
		why = fmt.Errorf("%w (%s: %w)", errNoLab, n, err)
	}
	return nil, nil, why
}

func printTable(rows map[string][]time.Duration) error {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(out, "\tp50\tp90\tp99\tmax\t")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		d := slices.Sorted(slices.Values(rows[name]))
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t\n", name, quantile(d, 50), quantile(d, 90), quantile(d, 99), quantile(d, 100))
	}
	return out.Flush()
}

// quantile of sorted durations: the smallest that p percent don't exceed.
func quantile(sorted []time.Duration, p int) time.Duration {
	i := (len(sorted)*p + 99) / 100
	return sorted[max(i, 1)-1].Round(10 * time.Microsecond)
}

// machine says where and how busy: figures of a loaded machine are only good
// for comparing with others of the same run.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown machine"
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		load = []byte("unknown")
	}
	return fmt.Sprintf("kernel %s, %d CPUs, load %s", unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), bytes.TrimSpace(load))
}

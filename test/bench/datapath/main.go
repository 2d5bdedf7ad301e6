// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Datapath measures what the eBPF programs cost, in nanoseconds of CPU a packet
// or connect(), and prints a table.
//
// Packets: PROG_TEST_RUN runs a wrapper (bench.bpf.c) many times; it makes the
// buffer the next flow's packet and tail-calls the program. The CPU time of the
// thread is read around the run. Runs of the program alternate with runs of a
// no-op behind the same wrapper, and the difference is the program's. Reported
// is the median of the rounds' differences, with the least and the most.
//
// Sockets: see sockets.go.
//
// Maps hold as many identities (or services) as the row says, each with an
// address of its own, in up to 1,024 classes. The policy has as many lines as the
// row says, of which the last one matches. "1 flow" stays in the caches; "64k
// flows" does not.
//
//	go run ./test/bench/datapath [-rounds 11] [-repeat 100000] [-run regexp] [-identities 1,10000] [-lines 1,32,1000]
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

func main() {
	rounds := flag.Int("rounds", 11, "measured rounds a figure; the median is reported")
	repeat := flag.Int("repeat", 100_000, "packets a round")
	run := flag.String("run", "", "only rows whose name matches this regular expression")
	sizes := flag.String("identities", "1,10000", "how many identities and services to fill the maps with")
	lengths := flag.String("lines", "1,32,1000", "how many lines the policy has, for the paths that scan it")
	flag.Parse()

	only, err := regexp.Compile(*run)
	if err != nil {
		fail(fmt.Errorf("-run: %w", err))
	}
	counts, err := parseCounts(*sizes)
	if err != nil {
		fail(fmt.Errorf("-identities: %w", err))
	}
	lines, err := parseCounts(*lengths)
	if err != nil {
		fail(fmt.Errorf("-lines: %w", err))
	}
	if socketChild() {
		if err := measureSockets(os.Stdout, *rounds, counts); err != nil {
			fail(err)
		}
		return
	}
	fmt.Println(machine())
	if err := packets(*rounds, *repeat, counts, lines, only); err != nil {
		fail(err)
	}
	if only.MatchString("socket LB") {
		if err := runSocketChild(); err != nil {
			fail(err)
		}
	}
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

func fail(err error) {
	fmt.Fprintf(os.Stderr, "datapath bench: %+v\n", err)
	os.Exit(1)
}

// packets measures and prints the packet hooks' rows.
func packets(rounds, repeat int, counts, lines []int, only *regexp.Regexp) error {
	fmt.Printf("\npacket hooks: ns of CPU a packet, median of %d rounds × %d packets (least-most)\n", rounds, repeat)
	w := tabwriter.NewWriter(os.Stdout, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "path\tidentities\tlines\t1 flow\t64k flows\tno-op loop subtracted\tstrays")
	for _, row := range packetRows {
		if !only.MatchString(row.name) {
			continue
		}
		scanned := lines
		if !row.scans() {
			scanned = lines[:1]
		}
		for _, l := range scanned {
			for _, n := range counts {
				one, many, err := measureRow(row, n, l, rounds, repeat)
				if err != nil {
					return fmt.Errorf("measuring %s at %d identities, %d lines: %w", row.name, n, l, err)
				}
				fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%.0f / %.0f\t%d\n",
					row.name, n, l, one, many, one.noop, many.noop, one.strays+many.strays)
				// A long run shows that it lives.
				fmt.Fprintf(os.Stderr, "%s, %d identities, %d lines: %s / %s\n", row.name, n, l, one, many)
			}
		}
	}
	return w.Flush()
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// printTable prints what each setup adds to the first one, which is direct.
func printTable(out io.Writer, setups []*live, all [][]figures, operations int) error {
	base := all[0]
	fmt.Fprintf(out, "%s\n", machine())
	fmt.Fprintf(out, "one CPU, %d rounds × %d; µs added to direct, median of rounds (least to most)\n", len(base), operations)
	fmt.Fprintf(out, "direct itself: connect+close %s, connect+request %s, request %s µs\n\n",
		middle(base, of(connect)), middle(base, of(exchange)), middle(base, of(roundTrip)))
	w := tabwriter.NewWriter(out, 2, 0, 2, ' ', 0)
	fmt.Fprintln(w, "setup\tservices\tconnect+close\tconnect+request\trequest, open connection\tprogrammed in")
	for i, l := range setups[1:] {
		rounds := all[i+1]
		added := func(f func(figures) time.Duration) string {
			return middle(rounds, func(r int, x figures) time.Duration { return f(x) - f(base[r]) })
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", l.setup.Name, l.setup.Services,
			added(connect), added(exchange), added(roundTrip), programmed(l))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	return nil
}

func programmed(l *live) string { return l.state.Programmed.Round(100 * time.Microsecond).String() }

func connect(f figures) time.Duration   { return f.connect }
func exchange(f figures) time.Duration  { return f.exchange }
func roundTrip(f figures) time.Duration { return f.roundTrip }

func of(f func(figures) time.Duration) func(int, figures) time.Duration {
	return func(_ int, x figures) time.Duration { return f(x) }
}

// middle of the rounds, with the least and the most, in microseconds.
func middle(rounds []figures, f func(round int, x figures) time.Duration) string {
	var all []float64
	for i, x := range rounds {
		all = append(all, float64(f(i, x).Nanoseconds())/1000)
	}
	slices.Sort(all)
	return fmt.Sprintf("%.1f (%.1f to %.1f)", all[len(all)/2], all[0], all[len(all)-1])
}

// machine says where and how busy: figures of a loaded machine are only good for comparing with others of the same run.
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

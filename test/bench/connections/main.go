// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Connections measures what a connection of a pod costs: pod → pod and pod → service → pod, both pods on one node, with
// Fairlead's real programs (its real agent attaches them and fills their maps) and a policy at both ends, beside the rule
// sets that kube-proxy would have written on the node, and beside nothing.
//
// Each row is a setup of its own: a node and two pods in network namespaces. All setups are up at once and rounds go
// through them in turn, on one CPU, so that whatever disturbs the machine disturbs all. A figure is the median over the
// rounds of (the round's median in this setup, minus the same round's median in the direct setup).
//
//	go run ./test/bench/connections [-services 1,1000,5000] [-rounds 11] [-operations 1000]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

const (
	roleNode   = "node"
	roleServer = "server"
	insideEnv  = "FAIRLEAD_BENCH_INSIDE"
)

func main() {
	var err error
	switch {
	case process.Role() != "":
		err = serveRole(process.Role())
	case os.Getenv(insideEnv) == "":
		err = ownMounts()
	default:
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "connections:", err)
		os.Exit(1)
	}
}

func serveRole(role string) error {
	switch role {
	case roleNode:
		return serveNode()
	case roleServer:
		return serveServers()
	}
	return fmt.Errorf("there is no role %q", role)
}

// ownMounts runs this binary again in a mount namespace of its own: the BPF file system that it mounts, and with it every
// map and program, goes with its last process, however that ends.
func ownMounts() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	signal.Ignore(os.Interrupt) // the one inside gets it too, and cleans up
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	}
	return err
}

func run() error {
	list := flag.String("services", "1,1000,5000", "how many services there are")
	rounds := flag.Int("rounds", 11, "rounds through all setups")
	operations := flag.Int("operations", 1000, "connections a round and setup, of each kind")
	only := flag.String("run", "", "only setups whose name matches this regular expression (direct is always there)")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	var counts []int
	for item := range strings.SplitSeq(*list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(item))
		if err != nil || n < 1 || n > 60_000 {
			return fmt.Errorf("-services: %q is no number from 1 to 60000", item)
		}
		counts = append(counts, n)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this run: %w", err)
	}
	if err := oneCPU(); err != nil {
		return err
	}
	return measure(setupsOf(counts, match), *rounds, *operations)
}

// oneCPU puts all threads of this process, and so all processes that it starts, on the last CPU, before all others there.
func oneCPU() error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("read the CPUs: %w", err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list threads: %w", err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &one); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("keep thread %d on one CPU: %w", tid, err)
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, -20); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("raise the priority of thread %d: %w", tid, err)
		}
	}
	return nil
}

// setupsOf lists the rows, direct first.
func setupsOf(counts []int, only *regexp.Regexp) []Setup {
	largest := counts[len(counts)-1]
	setups := []Setup{{Name: direct, Direct: true}}
	add := func(w Setup) {
		if only.MatchString(w.Name) {
			setups = append(setups, w)
		}
	}
	const yes = "its own" // the bench names the cgroup when it makes it
	for _, rules := range []string{"iptables-legacy", "iptables-nft", "nftables"} {
		for _, n := range counts {
			add(Setup{Name: rules, Rules: rules, Services: n})
		}
	}
	for _, n := range counts {
		add(Setup{Name: "Fairlead, policy at both ends", Services: n, Agent: true, Policy: true, Cgroup: yes})
	}
	for _, n := range counts {
		add(Setup{Name: "Fairlead, policy only, no service", Services: n, Agent: true, Policy: true, Direct: true})
	}
	add(Setup{Name: "Fairlead, sockets only", Services: largest, Agent: true, Cgroup: yes})
	for _, rules := range []string{"nftables", "iptables-legacy", "iptables-nft"} {
		add(Setup{Name: "Fairlead beside " + rules, Services: largest, Rules: rules, Agent: true, Policy: true, Cgroup: yes})
	}
	return setups
}

const direct = "direct"

func measure(setups []Setup, rounds, operations int) (err error) {
	began := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "[%5.1fs] %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	dir, err := os.MkdirTemp("", "fairlead-connections-")
	if err != nil {
		return fmt.Errorf("make a folder for the run: %w", err)
	}
	b, err := open(dir, setups, say)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-interrupted:
			_ = b.close()
			_ = os.RemoveAll(dir)
			os.Exit(130)
		case <-done:
		}
	}()
	defer func() {
		close(done)
		if err != nil {
			err = fmt.Errorf("%w (logs of the parts: %s)", err, dir)
		}
		if closed := b.close(); err == nil && closed == nil {
			_ = os.RemoveAll(dir)
		} else {
			err = errors.Join(err, closed)
		}
	}()
	if err != nil {
		return err
	}
	all := make([][]figures, len(b.setups))
	for round := range rounds {
		for i, l := range b.setups {
			f, err := l.round(operations)
			if err != nil {
				return fmt.Errorf("%s, %d services: %w", l.setup.Name, l.setup.Services, err)
			}
			all[i] = append(all[i], f)
		}
		say("round %d of %d", round+1, rounds)
	}
	return printTable(os.Stdout, b.setups, all, operations)
}

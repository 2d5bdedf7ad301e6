// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Scale measures the control path at the size that Fairlead is made for: real records in a real shared etcd, the operator's
// intake and relay, and a node agent that writes the kernel's real maps, at 1, 10, 100 and 250 clusters of 100 nodes, 100
// identities and 1,000 endpoints each, which change all the time.
//
//	publishers of n clusters ──► etcd ──► operator: intake, hub, relay ──► agent ──► fl_ipcache4, fl_services4, …
//	(this process)              (its own) (its own)               gRPC, TLS (its own)        read by this process
//
// etcd, operator and agent are processes of their own: this binary again, with a role. The machine's CPUs are shared by
// all of them, and by the generator. The clock of a change starts when the writing cluster's publisher is given it, and
// stops when the kernel's map has it.
//
//	go run ./test/bench/scale -sizes 1,10 -label today      # measure, keep in docs/scale/today.json
//	go run ./test/bench/scale -only services,policies,status,million -label today
//	go run ./test/bench/scale -render                       # docs/scale.md and its curves from all that was kept
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/bench/process"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/roles"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

func main() {
	var err error
	switch role := process.Role(); {
	case role != "":
		err = roles.Serve(role)
	case os.Getenv(insideEnv) == "":
		err = inside()
	default:
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

const insideEnv = "FAIRLEAD_BENCH_INSIDE"

// inside runs this binary again in a mount namespace of its own: the BPF file systems that it mounts, and with them every
// map, go with its last process, however that ends.
func inside() error {
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

type options struct {
	sizes   []int
	shape   workload.Shape
	only    map[string]bool
	seconds int
	label   string
	commit  string
	out     string
	million int
	render  bool
}

func parse() (o options, err error) {
	sizes := flag.String("sizes", "1,10,100,250", "how many clusters write, a run each; empty: none")
	shape := flag.String("shape", "100,100,1000", "nodes, identities and endpoints of each")
	only := flag.String("only", "", "parts beside the sizes: services, policies, status, million; with it, -sizes is empty unless given")
	flag.IntVar(&o.seconds, "seconds", 30, "of churn in each part that has it")
	flag.StringVar(&o.label, "label", "today", "name of the result, in docs/scale")
	flag.StringVar(&o.commit, "commit", "", "commit that is measured (default: asked of git)")
	flag.StringVar(&o.out, "out", "docs", "folder of scale.md")
	flag.IntVar(&o.million, "endpoints", 3_000_000, "endpoints of the part million")
	flag.BoolVar(&o.render, "render", false, "measure nothing: make scale.md and its curves from the results that are there")
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "sizes" })
	if *only != "" && !given {
		*sizes = ""
	}
	if o.sizes, err = numbers(*sizes); err != nil {
		return o, fmt.Errorf("-sizes: %w", err)
	}
	three, err := numbers(*shape)
	if err != nil || len(three) != 3 {
		return o, fmt.Errorf("-shape %q: want three numbers", *shape)
	}
	o.shape = workload.Shape{Nodes: three[0], Identities: three[1], Endpoints: three[2]}
	o.only = map[string]bool{}
	for part := range strings.SplitSeq(*only, ",") {
		switch part {
		case "", "services", "policies", "status", "million":
			o.only[part] = true
		default:
			return o, fmt.Errorf("-only: there is no part %q", part)
		}
	}
	return o, nil
}

func numbers(list string) (out []int, err error) {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		n, err := strconv.Atoi(item)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number from 1 on", item)
		}
		out = append(out, n)
	}
	return out, nil
}

func run() error {
	o, err := parse()
	if err != nil {
		return err
	}
	if o.render {
		return render(o.out)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to this run: %w", err)
	}
	dir, err := os.MkdirTemp("", "fairlead-scale-")
	if err != nil {
		return fmt.Errorf("make a folder for the run: %w", err)
	}
	keep := false
	defer func() {
		if !keep {
			_ = os.RemoveAll(dir)
		}
	}()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() { // children end with their input, mounts with this namespace
		<-interrupted
		_ = os.RemoveAll(dir)
		os.Exit(130)
	}()
	err = measure(o, dir)
	if err != nil {
		keep = true
		err = fmt.Errorf("%w (logs of the parts: %s)", err, dir)
	}
	return errors.Join(err, render(o.out))
}

// measure runs all that was asked for, and keeps each part's figures as soon as it has them.
func measure(o options, dir string) error {
	began := time.Now()
	commit := o.commit
	if commit == "" {
		out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
		if err != nil {
			return fmt.Errorf("ask git for the commit: %w", err)
		}
		commit = strings.TrimSpace(string(out))
	}
	result := &Result{Label: o.label, Commit: commit, Date: began.UTC().Format("2006-01-02"), Machine: machine(), Load: load()}
	path := filepath.Join(o.out, "scale", o.label+".json")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of results: %w", err)
	}
	save := func() error {
		result.Seconds = time.Since(began).Seconds()
		return result.save(path)
	}
	var failed error
	for i, n := range o.sizes {
		at := filepath.Join(dir, fmt.Sprintf("size-%d", n))
		say := progress(fmt.Sprintf("%d clusters (%d of %d)", n, i+1, len(o.sizes)), began)
		s, err := measureSize(at, plan{clusters: n, shape: o.shape, seconds: time.Duration(o.seconds) * time.Second}, say)
		if err != nil {
			return err
		}
		result.Sizes = append(result.Sizes, s)
		if err := save(); err != nil {
			return err
		}
		if len(s.Failed) > 0 {
			failed = errors.Join(failed, fmt.Errorf("%d clusters: %s", n, strings.Join(s.Failed, "; ")))
			continue // its logs stay
		}
		_ = os.RemoveAll(at)
	}
	for _, part := range parts(o, result) {
		if !o.only[part.name] {
			continue
		}
		if err := part.run(filepath.Join(dir, part.name), progress(part.name, began)); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		if err := save(); err != nil {
			return err
		}
	}
	fmt.Fprintf(os.Stderr, "measured in %s; figures are in %s\n", time.Since(began).Round(time.Second), path)
	return failed
}

func progress(what string, began time.Time) func(string, ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "[%5.0fs, load %s] %s: %s\n", time.Since(began).Seconds(), load(), what, fmt.Sprintf(format, args...))
	}
}

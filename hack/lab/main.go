// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Command lab runs real Kubernetes clusters on one machine, for development,
// for the demo and for the tests: nodes are network and mount namespaces, the
// programs in them are the real ones, built from pinned sources.
//
// The verbs are in the files beside this one; what they do is in the packages
// below: topology says what an instance looks like, toolchain builds the
// programs, netlab, process, pki and image handle one kind of thing each,
// controlplane, node, hub and addons one part each, and instance puts all of
// them together.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// verb is one command of the lab.
type verb struct {
	name, args, help string
	run              func(ctx context.Context, args []string) error
}

func verbs() []verb {
	return []verb{
		{"tools", "", "install packages and build the programs a lab runs", runTools},
		{"up", "--instance NAME [--clusters east,west] [--nodes 2]", "bring an instance up, or repair it", runUp},
		{"down", "--instance NAME", "remove every trace of an instance", runDown},
		{"status", "[--instance NAME]", "show instances, nodes and programs", runStatus},
		{"pids", "--instance NAME", "print PART NAME PID of every program", runPIDs},
		{"kubeconfig", "--instance NAME --cluster NAME", "print the path of a kubeconfig", runKubeconfig},
		{"kubectl", "--instance NAME --cluster NAME -- ARGS…", "run kubectl", runKubectl},
		{"exec", "--instance NAME --node PART -- COMMAND…", "run a command in a node, a router (east), wan or hub", runExec},
		{"load-image", "--instance NAME [--clusters east,west] NAME:TAG=BINARY[,FILE=/PATH…]…", "build images of static binaries and bring them to the nodes", runLoadImage},
		{"stop", "--instance NAME PROGRAM…", "stop programs: hub-etcd, east-1-kubelet, … (PART-NAME of what pids lists)", runStop},
		{"start", "--instance NAME PROGRAM…", "start them again", runStart},
		{"kill", "--instance NAME PROGRAM…", "end programs with SIGKILL", runKill},
		{"serve-git", "--root DIR --listen ADDRESS", "serve Git repositories (used by the hub)", runServeGit},
	}
}

// usageError is the user's mistake, not the lab's.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := dispatch(ctx, os.Args[1:])
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	// A command run for the user has said itself what went wrong.
	var exit *exec.ExitError
	if errors.As(err, &exit) && isPassed(err) {
		os.Exit(exit.ExitCode())
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted: the same command goes on where it stopped, `lab down` cleans up")
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	if errors.As(err, new(usageError)) {
		os.Exit(2)
	}
	os.Exit(1)
}

func dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage(os.Stderr)
		return usagef("which verb?")
	}
	if slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		usage(os.Stdout)
		return nil
	}
	all := verbs()
	i := slices.IndexFunc(all, func(v verb) bool { return v.name == args[0] })
	if i < 0 {
		usage(os.Stderr)
		return usagef("unknown verb %q", args[0])
	}
	return all[i].run(ctx, args[1:])
}

func usage(w *os.File) {
	fmt.Fprint(w, "usage: lab VERB [FLAGS] [ARGS]\n\n")
	for _, v := range verbs() {
		fmt.Fprintf(w, "  %s\n      %s\n", strings.TrimSpace(v.name+" "+v.args), v.help)
	}
}

// flags are those that several verbs share.
type flags struct {
	*flag.FlagSet
	instance, cluster, clusters, node string
	nodes                             int
}

func newFlags(verb string) *flags {
	return &flags{FlagSet: flag.NewFlagSet("lab "+verb, flag.ContinueOnError)}
}

func (f *flags) withInstance() *flags {
	f.StringVar(&f.instance, "instance", "", "name of the instance")
	return f
}

func (f *flags) withCluster() *flags {
	f.StringVar(&f.cluster, "cluster", "", "name of the cluster")
	return f
}

func (f *flags) withClusters() *flags {
	f.StringVar(&f.clusters, "clusters", "", "names of clusters, with commas between")
	return f
}

// parse reads the flags and insists on those named.
func (f *flags) parse(args []string, required ...string) error {
	f.SetOutput(os.Stderr)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	for _, name := range required {
		if f.Lookup(name).Value.String() == "" {
			return usagef("%s: --%s is missing", f.Name(), name)
		}
	}
	return nil
}

func (f *flags) noArgs() error {
	if f.NArg() > 0 {
		return usagef("%s: what is %q?", f.Name(), f.Arg(0))
	}
	return nil
}

func (f *flags) clusterList() []string {
	if f.clusters == "" {
		return nil
	}
	return strings.Split(f.clusters, ",")
}

// passedError is the failure of a command that was run for the user.
type passedError struct{ error }

func (e passedError) Unwrap() error { return e.error }

func isPassed(err error) bool { return errors.As(err, new(passedError)) }

// pass runs a command with the terminal's input and output.
func pass(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Ended with us, it may clean up; a terminal's interrupt it gets itself.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return passedError{err}
	}
	return nil
}

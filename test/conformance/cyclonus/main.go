// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Cyclonus runs the test cases of github.com/mattfenwick/cyclonus on a cluster. Cases, what is done for them, what must come of it,
// comparison and retries are Cyclonus' own packages; only how pods are asked to try connections is ours: Cyclonus starts a
// process for each try, which takes minutes a case, and this program keeps one in each pod that tries all of a step's at once.
//
// It is a module of its own because Cyclonus needs a client of Kubernetes that is older than the project's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/sirupsen/logrus"
	v1 "k8s.io/api/core/v1"
)

// What Cyclonus has by default, unless a comment says why it is otherwise.
const (
	registry = "registry.k8s.io"
	podStart = 300 // seconds; its 60 are too few where a node has two cores and 54 containers to start
	// wait is how long a change may take before the first look, in seconds. Cyclonus waits for 5 and looks twice; this waits for 2
	// and looks up to four times, which with the time that a look takes is as long.
	wait    = 2
	retries = 3
)

var (
	namespaces = []string{"x", "y", "z"}
	made       = []string{"w", "y-2"} // by cases
	pods       = []string{"a", "b", "c"}
	ports      = []int{80, 81}
)

// outcome is what came of a case; test/conformance reads it.
type outcome struct {
	Name  string
	Error string // the case couldn't be run
	Steps int
	Looks int // at least one a step
	Wrong []cell
}

// cell is a connection that isn't as it should be, at the last look.
type cell struct {
	Step           int
	From, To, Port string
	Want, Got      string
}

func main() {
	out := flag.String("out", "", "where the results go")
	match := flag.String("run", "", "only cases whose name matches this regular expression")
	protocols := flag.String("protocols", "TCP,UDP,SCTP", "what pods serve, and is tried")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	logrus.SetLevel(logrus.WarnLevel)
	if err := run(ctx, *out, *match, strings.Split(*protocols, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "cyclonus:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, match string, names []string) (err error) {
	only, err := regexp.Compile(match)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	k, err := connect(ctx, os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	defer k.close()
	all := slices.Concat(namespaces, made)
	if err := k.remove(ctx, all); err != nil { // of a run that was killed
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Minute)
		defer cancel()
		err = errors.Join(err, k.remove(ctx, all))
	}()
	var protocols []v1.Protocol
	for _, name := range names {
		protocols = append(protocols, v1.Protocol(name))
	}
	resources, err := probe.NewDefaultResources(k, namespaces, pods, ports, protocols, nil, podStart, false, registry)
	if err != nil {
		return fmt.Errorf("make pods and services: %w", err)
	}
	outside, err := resources.GetPod("z", "c") // whose address is in the cases' blocks
	if err != nil {
		return err
	}
	interpreter := connectivity.NewInterpreter(k, resources, &connectivity.InterpreterConfig{
		ResetClusterBeforeTestCase: true, VerifyClusterStateBeforeTestCase: true,
		KubeProbeRetries: retries, PerturbationWaitSeconds: wait,
		BatchJobs: true, IgnoreLoopback: true,
	})
	// No tag is left out, also those that Cyclonus leaves out by default.
	cases := generator.NewTestCaseGenerator(true, outside.IP, namespaces, nil, nil).GenerateTestCases()
	var outcomes []outcome
	for i, c := range cases {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := fmt.Sprintf("%03d %s [%s]", i+1, c.Description, strings.Join(c.Tags.Keys(), ", "))
		if !only.MatchString(name) {
			continue
		}
		k.begin()
		begun := time.Now()
		o := judge(name, interpreter.ExecuteTestCase(c))
		if err := ctx.Err(); err != nil { // it was interrupted, which is no result
			return err
		}
		outcomes = append(outcomes, o)
		fmt.Printf("[%3d of %d, %4.1fs] %s: %s\n", i+1, len(cases), time.Since(begun).Seconds(), verdict(o), name)
		if err := write(out, outcomes); err != nil {
			return err
		}
	}
	return nil
}

func verdict(o outcome) string {
	switch {
	case o.Error != "":
		return "FAIL: " + o.Error
	case len(o.Wrong) > 0:
		return fmt.Sprintf("FAIL: %d wrong, such as %+v", len(o.Wrong), o.Wrong[0])
	}
	return "pass"
}

func write(path string, outcomes []outcome) error {
	data, err := json.MarshalIndent(outcomes, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// judge says of a case's results what isn't as Cyclonus expects.
func judge(name string, r *connectivity.Result) outcome {
	o := outcome{Name: name, Steps: len(r.Steps)}
	if r.Err != nil {
		o.Error = r.Err.Error()
	}
	for i, step := range r.Steps {
		o.Looks += len(step.KubeProbes)
		table := step.LastComparison()
		for _, key := range table.Wrapped.Keys() {
			item := table.Get(key.From, key.To)
			if key.From == key.To || item.IsSuccess() {
				continue
			}
			for port := range item.Kube.JobResults {
				c := cell{Step: i + 1, From: key.From, To: key.To, Port: port, Want: "nothing", Got: string(item.Kube.JobResults[port].Combined)}
				if want := item.Simulated.JobResults[port]; want != nil {
					c.Want = string(want.Combined)
				}
				if c.Want != c.Got {
					o.Wrong = append(o.Wrong, c)
				}
			}
		}
		if !step.Passed(true) && len(o.Wrong) == 0 {
			o.Error = fmt.Sprintf("step %d: Cyclonus says that something is wrong, and not what", i+1)
		}
	}
	return o
}

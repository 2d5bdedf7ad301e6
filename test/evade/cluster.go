// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

// image is what all pods run.
const image = "fairlead.local/attacker:dev"

// cluster is one of the two.
type cluster struct{ name, kubeconfig, kubectl string }

func findCluster(ctx context.Context, instance, name, kubectl string) (cluster, error) {
	out, err := exec.CommandContext(ctx, "go", "run", "./hack/lab", "kubeconfig", "--instance", instance, "--cluster", name).Output()
	if err != nil {
		return cluster{}, fmt.Errorf("find the kubeconfig of %s: %w (make demo brings the clusters up)", name, err)
	}
	return cluster{name: name, kubeconfig: strings.TrimSpace(string(out)), kubectl: kubectl}, nil
}

// run runs kubectl, with input if there is some.
func (c cluster) run(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	if input != nil {
		cmd.Stdin = bytes.NewReader(input)
	}
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s: kubectl %s: %w: %s", c.name, strings.Join(args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out, nil
}

func (c cluster) apply(ctx context.Context, manifest string) error {
	_, err := c.run(ctx, []byte(manifest), "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func (c cluster) delete(ctx context.Context, manifest string) error {
	_, err := c.run(ctx, []byte(manifest), "delete", "--ignore-not-found", "--wait=false", "-f", "-")
	return err
}

// attacker runs the program in a pod.
func (c cluster) attacker(ctx context.Context, pod string, input []byte, args ...string) ([]byte, error) {
	verb := []string{"exec", "-n", namespace, pod, "--", "/attacker"}
	if input != nil {
		verb = append([]string{"exec", "-i"}, verb[1:]...)
	}
	return c.run(ctx, input, append(verb, args...)...)
}

// follow runs the program in a pod, and reads what it says while it runs. If it fails, reading does at the end.
func (c cluster) follow(ctx context.Context, pod string, args ...string) io.Reader {
	out, in := io.Pipe()
	verb := append([]string{"--kubeconfig", c.kubeconfig, "exec", "-n", namespace, pod, "--", "/attacker"}, args...)
	cmd := exec.CommandContext(ctx, c.kubectl, verb...)
	var problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = in, &problems
	go func() {
		err := cmd.Run()
		if err != nil {
			err = fmt.Errorf("%s: kubectl %s: %w: %s", c.name, strings.Join(verb[2:], " "), err, strings.TrimSpace(problems.String()))
		}
		in.CloseWithError(err)
	}()
	return out
}

// try has a pod do jobs.
func (c cluster) try(ctx context.Context, pod string, jobs []job.Job) (map[string]job.Result, error) {
	var in bytes.Buffer
	for _, j := range jobs {
		if err := json.NewEncoder(&in).Encode(j); err != nil {
			return nil, fmt.Errorf("write a job: %w", err)
		}
	}
	out, err := c.attacker(ctx, pod, in.Bytes(), "try")
	if err != nil {
		return nil, err
	}
	results := map[string]job.Result{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var r job.Result
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read what became of jobs: %w", err)
		}
		results[r.Token] = r
	}
	for _, j := range jobs {
		if _, ok := results[j.Token]; !ok {
			return nil, fmt.Errorf("%s of %s doesn't tell what became of %s", pod, c.name, j.How)
		}
	}
	return results, nil
}

// seen is what arrived at a pod, by token.
func (c cluster) seen(ctx context.Context, pod string) (map[string][]job.Sighting, error) {
	out, err := c.attacker(ctx, pod, nil, "seen")
	if err != nil {
		return nil, err
	}
	var all []job.Sighting
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("read what %s saw: %w", pod, err)
	}
	by := map[string][]job.Sighting{}
	for _, s := range all {
		by[s.Token] = append(by[s.Token], s)
	}
	return by, nil
}

// loadImage builds the program and brings it to all nodes.
func loadImage(ctx context.Context, instance string) error {
	path := filepath.Join("bin", "evade", "attacker")
	if err := command(ctx, "go", "build", "-o", path, "./test/evade/attacker"); err != nil {
		return err
	}
	return command(ctx, "go", "run", "./hack/lab", "load-image", "--instance", instance, image+"="+path)
}

func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

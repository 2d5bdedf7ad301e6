// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// longStream is one TCP connection from a pod in east to the global service, held while things are broken.
type longStream struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan error
}

// startStream opens the connection in a pod; it ends by itself after duration.
func (w *World) startStream(ctx context.Context, duration time.Duration) (*longStream, error) {
	s := &longStream{ended: make(chan error, 1)}
	s.cmd = exec.CommandContext(ctx, w.lab, "kubectl", "--instance", w.Instance, "--cluster", East, "--",
		"exec", "-n", "starwars", "deploy/tiefighter", "--", "/sample", "stream", "--interval", "20ms",
		"--duration", duration.String(), "deathstar.starwars.svc.cluster.local:8082")
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a stream: %w", err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	return s, nil
}

// unbroken waits for the stream's own end and wants every line echoed in order, with no gap of longer than patience.
func (w *World) unbroken(s *longStream, patience time.Duration) error {
	err := <-s.ended
	out := s.output.String()
	w.Show(out)
	var report struct {
		Sent    int     `json:"sent"`
		Echoed  int     `json:"echoed"`
		Longest float64 `json:"longestGapSeconds"`
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "{") {
			if err := json.Unmarshal([]byte(line), &report); err != nil {
				return fmt.Errorf("parse the stream's report %q: %w", line, err)
			}
		}
	}
	if err != nil || report.Sent == 0 || report.Echoed != report.Sent || report.Longest > patience.Seconds() {
		return Unexpected(fmt.Sprintf("an unbroken stream, no gap over %s", patience), out, "kubectl fairlead observe; kubectl -n fairlead-system get pods")
	}
	w.Passed("one connection, %d lines each way, none lost; the longest pause was %.0f ms", report.Sent, report.Longest*1000)
	return nil
}

// AgentsKilled kills the agent of every node under a running connection.
func (w *World) AgentsKilled(ctx context.Context) error {
	w.Title("Every node agent is killed with SIGKILL")
	stream, err := w.startStream(ctx, 12*time.Second)
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	for _, cluster := range []string{East, West} {
		for _, node := range nodes(cluster) {
			pids, err := w.agentPIDs(node)
			if err != nil {
				return err
			}
			if len(pids) == 0 {
				return Unexpected("an agent on "+node, "no process", "kubectl -n fairlead-system get pods -o wide")
			}
			for _, pid := range pids {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					return fmt.Errorf("kill the agent of %s (pid %d): %w", node, pid, err)
				}
				w.Say("%s: kill -9 %d (nodeagent)", node, pid)
			}
		}
	}
	for _, cluster := range []string{East, West} {
		if _, out, err := w.land(ctx, cluster, "xwing", 2); err != nil {
			return Unexpected("new connections from "+cluster+" while the agents are dead", out+err.Error(), "the pins in /sys/fs/bpf/fairlead on the nodes")
		}
	}
	w.Passed("new connections succeed at once, in both clusters")
	if err := w.unbroken(stream, 2*time.Second); err != nil {
		return err
	}
	if _, err = w.Plugin(ctx, "status", "--wait", "--timeout", "180s"); err != nil {
		return err
	}
	if _, err := w.backends(ctx); err != nil {
		return err
	}
	w.Passed("the kubelets started them again, and every pod still answers")
	return nil
}

// agentPIDs finds the agent processes of a node: the command nodeagent, but not as the tunnel (`nodeagent wireguard`), in a
// cgroup of that node of this instance.
func (w *World) agentPIDs(node string) ([]int, error) {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, path := range processes {
		command, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		argv := strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
		if filepath.Base(argv[0]) != "nodeagent" || slices.Contains(argv, "wireguard") {
			continue
		}
		cgroup, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cgroup"))
		if err != nil || !strings.Contains(string(cgroup), "/"+w.Instance+"-"+node+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, fmt.Errorf("process id of %s: %w", path, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// ControlPlaneDown stops both operators and the shared etcd under a running connection, and starts them again.
func (w *World) ControlPlaneDown(ctx context.Context) error {
	w.Title("Both operators and the shared etcd are stopped")
	before, err := w.backends(ctx)
	if err != nil {
		return err
	}
	stream, err := w.startStream(ctx, 40*time.Second)
	if err != nil {
		return err
	}
	if err := w.stopControlPlane(ctx); err != nil {
		return err
	}
	for _, cluster := range []string{East, West} {
		if _, out, err := w.land(ctx, cluster, "xwing", 4); err != nil {
			return Unexpected("new connections from "+cluster+" with the mesh's control plane down", out+err.Error(), "nodeagent status on the nodes")
		}
	}
	w.Passed("new connections succeed in both clusters, with nothing left to ask")
	if err := w.startControlPlane(ctx); err != nil {
		return err
	}
	if err := w.unbroken(stream, 2*time.Second); err != nil {
		return err
	}
	out, err := w.Plugin(ctx, "status", "--wait", "--timeout", "2m")
	if err != nil {
		w.Show(out)
		return err
	}
	after, err := w.backends(ctx)
	if err != nil {
		return err
	}
	if after != before {
		return Unexpected("the same backends as before:\n"+before, after, "kubectl -n fairlead-system logs deploy/fairlead-operator")
	}
	w.Passed("they came back, and nothing flapped: the same backends as before")
	return nil
}

func (w *World) stopControlPlane(ctx context.Context) error {
	for _, cluster := range []string{East, West} {
		if _, err := w.Kubectl(ctx, cluster, "scale", "-n", "fairlead-system", "deploy/fairlead-operator", "--replicas=0"); err != nil {
			return err
		}
		if _, err := w.Kubectl(ctx, cluster, "wait", "-n", "fairlead-system", "--for=delete", "pod", "-l", "app.kubernetes.io/name=fairlead-operator", "--timeout=180s"); err != nil {
			return err
		}
		w.Say("%s: operator scaled to zero", cluster)
	}
	if _, err := w.Lab(ctx, "stop", "hub-etcd"); err != nil {
		return err
	}
	w.Say("hub: shared etcd stopped")
	return nil
}

func (w *World) startControlPlane(ctx context.Context) error {
	if _, err := w.Lab(ctx, "start", "hub-etcd"); err != nil {
		return err
	}
	for _, cluster := range []string{East, West} {
		if _, err := w.Kubectl(ctx, cluster, "scale", "-n", "fairlead-system", "deploy/fairlead-operator", "--replicas=1"); err != nil {
			return err
		}
	}
	w.Say("all of them started again")
	return nil
}

// backends lists which pods answer calls from east, sorted: what must be the same after an outage as before.
func (w *World) backends(ctx context.Context) (string, error) {
	var seen string
	_, err := Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
		answers, out, err := w.land(ctx, East, "tiefighter", 40)
		if err != nil {
			return Unexpected("40 answers to calls from east", out+err.Error(), "kubectl fairlead observe --verdict denied")
		}
		pods := map[string]bool{}
		for _, a := range answers {
			pods[a.Cluster+"/"+a.Pod] = true
		}
		seen = strings.Join(sortedKeys(pods), "\n")
		return nil
	})
	return seen, err
}

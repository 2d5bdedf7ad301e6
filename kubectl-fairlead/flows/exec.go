// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
)

// Agent is the agent's pod on a node.
type Agent struct {
	Context string
	Node    string
	pod     string
	config  *rest.Config
	client  kubernetes.Interface
}

const (
	agentLabel     = "app.kubernetes.io/name=fairlead-nodeagent"
	agentContainer = "nodeagent"
)

// Agents finds the running agents of a cluster, on one node if it is named.
func Agents(ctx context.Context, name string, config *rest.Config, node string) ([]Agent, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("%s: make a client: %w", name, err)
	}
	pods, err := client.CoreV1().Pods(evaluate.Namespace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return nil, fmt.Errorf("%s: list the agents' pods: %w", name, err)
	}
	var out []Agent
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodRunning && (node == "" || p.Spec.NodeName == node) {
			out = append(out, Agent{Context: name, Node: p.Spec.NodeName, pod: p.Name, config: config, client: client})
		}
	}
	return out, nil
}

// Observe runs the agent's own observe in its pod and hands on what it tells, until that ends or ctx does.
func (a Agent) Observe(ctx context.Context, args []string, tell func(Flow)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan error, 1)
	go func() {
		err := a.exec(ctx, append([]string{"nodeagent", "observe", "-o", "json"}, args...), writer, &stderr)
		_ = writer.CloseWithError(io.EOF)
		done <- err
	}()
	err := decode(reader, func(v Flow) {
		v.Context, v.Node = a.Context, a.Node // what the agent calls itself counts less than whom we asked
		tell(v)
	})
	_ = reader.CloseWithError(errors.New("nobody reads any more"))
	if err != nil {
		cancel()
	}
	ran := <-done
	switch {
	case err != nil:
		return fmt.Errorf("%s: agent of %s: %w", a.Context, a.Node, err)
	case ran != nil && ctx.Err() == nil:
		return fmt.Errorf("%s: agent of %s: %w: %s", a.Context, a.Node, ran, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// exec goes through the apiserver: over WebSocket, or over SPDY where a proxy in between or an older server wants that.
func (a Agent) exec(ctx context.Context, argv []string, stdout, stderr io.Writer) error {
	request := a.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(evaluate.Namespace).Name(a.pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: agentContainer, Command: argv, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	spdy, err := remotecommand.NewSPDYExecutor(a.config, "POST", request.URL())
	if err != nil {
		return fmt.Errorf("prepare exec: %w", err)
	}
	websocket, err := remotecommand.NewWebSocketExecutor(a.config, "GET", request.URL().String())
	if err != nil {
		return fmt.Errorf("prepare exec: %w", err)
	}
	executor, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return fmt.Errorf("prepare exec: %w", err)
	}
	// An input that says nothing and ends with us; the agent's side ends with it.
	stdin, end := io.Pipe()
	defer func() { _ = end.Close() }()
	return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: stdout, Stderr: stderr})
}

// longestLine that is believed to be a verdict.
const longestLine = 1 << 20

func decode(r io.Reader, tell func(Flow)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var v Flow
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return fmt.Errorf("understand %q: %w", short(lines.Text()), err)
		}
		tell(v)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read verdicts: %w", err)
	}
	return nil
}

func short(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

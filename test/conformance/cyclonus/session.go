// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// answerIn is how long a pod may take for an order: its connections are tried at once and take seconds.
const answerIn = 2 * time.Minute

// session is a worker that runs in a pod, asked over its standard input: a line for each order, and a line for each answer.
type session struct {
	cancel  context.CancelFunc
	in      *io.PipeWriter
	answers chan string
	ended   chan struct{} // when the command has
	err     error         // why; before ended is closed

	mu sync.Mutex // one order after the other
}

func (c *cluster) open(namespace, pod, container string) (*session, error) {
	request := c.ClientSet.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(pod).SubResource("exec").VersionedParams(
		&v1.PodExecOptions{Container: container, Command: []string{worker}, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(c.RestConfig, "POST", request.URL())
	if err != nil {
		return nil, fmt.Errorf("run the worker in %s/%s: %w", namespace, pod, err)
	}
	ctx, cancel := context.WithCancel(c.ctx)
	input, in := io.Pipe()
	out, output := io.Pipe()
	s := &session{cancel: cancel, in: in, answers: make(chan string), ended: make(chan struct{})}
	go func() {
		var problems bytes.Buffer
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: input, Stdout: output, Stderr: &problems})
		s.err = fmt.Errorf("the worker in %s/%s ended: %w", namespace, pod, errors.Join(err, errors.New(strings.TrimSpace(problems.String()))))
		close(s.ended)
		_ = input.Close()
		_ = output.Close()
	}()
	go func() {
		for r := bufio.NewReader(out); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case s.answers <- line:
			case <-s.ended:
				return
			}
		}
	}()
	return s, nil
}

func (s *session) ask(ctx context.Context, order string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := io.WriteString(s.in, order+"\n"); err != nil {
		<-s.ended
		return "", s.err
	}
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	select {
	case answer := <-s.answers:
		return answer, nil
	case <-s.ended:
		return "", s.err
	case <-ctx.Done():
		return "", fmt.Errorf("wait for the worker's answer: %w", ctx.Err())
	}
}

func (s *session) close() {
	s.cancel()
	_ = s.in.Close()
}

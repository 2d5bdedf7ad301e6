// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process runs parts of the bench as processes of their own, so that memory and CPU time are theirs. A binary runs
// itself again with a role in its environment; parent and child exchange one JSON object a line over the child's standard
// input and output. A child whose parent is gone reads the end of its input, and ends.
package process

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const roleEnv = "FAIRLEAD_BENCH_ROLE"

// Role of this process; empty: the parent's.
func Role() string { return os.Getenv(roleEnv) }

type request struct {
	Command string          `json:"command"`
	Args    json.RawMessage `json:"args,omitempty"`
}

type response struct {
	Error string          `json:"error,omitempty"`
	Value json.RawMessage `json:"value,omitempty"`
}

// Child is a running role.
type Child struct {
	Role    string
	Started time.Time
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	log     string

	mu  sync.Mutex // one call at a time
	in  *json.Encoder
	out *json.Decoder
}

// Start runs this binary again as a role and waits until it is ready. Its log goes to dir. namespaces are clone(2) flags.
func Start(role, dir string, config any, namespaces uintptr) (*Child, error) {
	return StartAsking(role, dir, config, nil, namespaces)
}

// StartAsking is Start for a role that has an answer when it is ready.
func StartAsking(role, dir string, config, answer any, namespaces uintptr) (*Child, error) {
	c := &Child{Role: role, log: filepath.Join(dir, role+".log"), Started: time.Now()}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	defer log.Close()
	c.cmd = exec.Command(self)
	c.cmd.Env = append(os.Environ(), roleEnv+"="+role)
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setpgid: true}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	c.in, c.out = json.NewEncoder(c.stdin), json.NewDecoder(bufio.NewReader(stdout))
	if err := c.Call("start", config, answer); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// Call sends a command and decodes its answer into reply, unless that is nil.
func (c *Child) Call(command string, args, reply any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	raw, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("%s: encode %s: %w", c.Role, command, err)
	}
	if err := c.in.Encode(request{command, raw}); err != nil {
		return fmt.Errorf("%s: send %s: %w (see %s)", c.Role, command, err, c.log)
	}
	var r response
	if err := c.out.Decode(&r); err != nil {
		return fmt.Errorf("%s: no answer to %s: %w (see %s)", c.Role, command, err, c.log)
	}
	if r.Error != "" {
		return fmt.Errorf("%s: %s: %s", c.Role, command, r.Error)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(r.Value, reply); err != nil {
		return fmt.Errorf("%s: read the answer to %s: %w", c.Role, command, err)
	}
	return nil
}

// Kill ends the child as a crash would.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// Stop lets the child end by itself, and ends it if it doesn't.
func (c *Child) Stop() {
	_ = c.stdin.Close()
	done := make(chan struct{})
	go func() { _ = c.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = c.cmd.Process.Kill()
		<-done
	}
}

// Handlers of a role, by command. "start" comes first and once.
type Handlers map[string]func(args json.RawMessage) (any, error)

// Serve answers commands until the input ends.
func Serve(h Handlers) error {
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var req request
		if err := in.Decode(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		if err := out.Encode(answer(h, req)); err != nil {
			return fmt.Errorf("answer %s: %w", req.Command, err)
		}
	}
}

func answer(h Handlers, req request) response {
	f, ok := h[req.Command]
	if !ok {
		return response{Error: "no such command"}
	}
	value, err := f(req.Args)
	if err != nil {
		return response{Error: err.Error()}
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return response{Error: err.Error()}
	}
	return response{Value: raw}
}

// Call adapts a function of one argument to a handler.
func Call[A, R any](f func(A) (R, error)) func(json.RawMessage) (any, error) {
	return func(raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, fmt.Errorf("read arguments: %w", err)
		}
		return f(args)
	}
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/tunnel"
)

// asTunnel makes the test binary be the tunnel process, so that a test can
// kill it like one.
const asTunnel = "FAIRLEAD_TEST_TUNNEL"

func TestMain(m *testing.M) {
	raw := os.Getenv(asTunnel)
	if raw == "" {
		os.Exit(m.Run())
	}
	var cfg tunnel.Config
	if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	go func() { // the test's end closes our stdin, even if it was killed
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	if err := tunnel.Run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is a running tunnel process.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   chan string
}

var devices atomic.Int32

// deviceName is unique on this machine: control sockets are named by device,
// whatever the network namespace.
func deviceName() string { return fmt.Sprintf("flt%d-%d", os.Getpid()%10000000, devices.Add(1)) }

// launch starts a tunnel process in ns and returns once it serves, or once it
// says that the kernel does.
func launch(t *testing.T, ns *nstest.NS, cfg tunnel.Config) *process {
	t.Helper()
	p := start(t, ns, cfg)
	p.waitFor(t, "serving the tunnel", "the kernel has WireGuard")
	return p
}

// userspaceOnly is for tests of the process at work: where the kernel has
// WireGuard it only waits, which the other tests see.
func userspaceOnly(t *testing.T) {
	t.Helper()
	var impl wireguard.Implementation
	nstest.New(t).Do(t, func() (err error) {
		impl, err = wireguard.Detect("flprobe")
		return err
	})
	if impl == wireguard.Kernel {
		t.Skip("this kernel has WireGuard: there is no process to kill")
	}
}

func start(t *testing.T, ns *nstest.NS, cfg tunnel.Config) *process {
	t.Helper()
	raw, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{log: make(chan string, 1000)}
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), asTunnel+"="+string(raw))
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	ns.Do(t, p.cmd.Start)
	go func() {
		defer close(p.log)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.log <- s.Text()
		}
	}()
	t.Cleanup(func() { p.kill(); _ = os.Remove("/var/run/wireguard/" + cfg.Device + ".sock") })
	return p
}

func (p *process) waitFor(t *testing.T, texts ...string) string {
	t.Helper()
	var seen []string
	for line := range p.log {
		seen = append(seen, line)
		if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(line, text) }) {
			return line
		}
	}
	t.Fatalf("the tunnel process ended without saying one of %q; it said:\n%s", texts, strings.Join(seen, "\n"))
	return ""
}

// kill is SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	for range p.log { // the reader must be done before Wait
	}
	_ = p.cmd.Wait()
}

// terminate is SIGTERM; it returns the exit error.
func (p *process) terminate() error {
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	for range p.log {
	}
	return p.cmd.Wait()
}

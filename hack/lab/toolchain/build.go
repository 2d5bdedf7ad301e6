// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package toolchain

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ensure builds whatever is missing and reports to w as it goes.
func (c *Cache) Ensure(ctx context.Context, w io.Writer) error {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("make tool cache: %w", err)
	}
	if len(c.missing()) == 0 {
		return nil
	}
	// Two builds beside each other would take twice as long as one after the
	// other, and the second finds everything there.
	unlock, err := c.lock(ctx, w)
	if err != nil {
		return err
	}
	defer unlock()

	missing := c.missing()
	p := &progress{w: w, started: time.Now()}
	stale := map[string]bool{} // the tools share packages
	for _, t := range missing {
		fmt.Fprintf(w, "  %s %s: resolving and downloading modules\n", t.Name, t.Version)
		packages, err := c.stale(ctx, t)
		if err != nil {
			return err
		}
		for _, pkg := range packages {
			stale[pkg] = true
		}
	}
	p.total = len(stale)
	for _, t := range missing {
		if err := c.build(ctx, t, p); err != nil {
			return fmt.Errorf("build %s %s: %w", t.Name, t.Version, err)
		}
	}
	return nil
}

func (c *Cache) missing() []Tool {
	var missing []Tool
	for _, t := range Tools() {
		if !c.Has(t) {
			missing = append(missing, t)
		}
	}
	return missing
}

func (c *Cache) lock(ctx context.Context, w io.Writer) (func(), error) {
	f, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock tool cache: %w", err)
	}
	for told := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock tool cache: %w", err)
		}
		if !told {
			told = true
			fmt.Fprintln(w, "  another process is building the tools: waiting for it")
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// command prepares a go command in the tool's module. The pinned modules must
// neither be changed by it nor be seen through a workspace.
func (c *Cache) command(ctx context.Context, t Tool, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(c.source, t.Name)
	cgo := "CGO_ENABLED=0"
	if t.CGO {
		cgo = "CGO_ENABLED=1"
	}
	cmd.Env = append(os.Environ(), cgo, "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false")
	return cmd
}

func (t Tool) packages() []string {
	if len(t.Packages) == 0 {
		return []string{"."}
	}
	return t.Packages
}

// stale lists the packages, with their modules' versions, that the build will
// have to compile, which makes its progress measurable. It downloads the
// modules on the way.
func (c *Cache) stale(ctx context.Context, t Tool) ([]string, error) {
	const format = "{{if .Stale}}{{.ImportPath}}{{with .Module}}@{{.Version}}{{end}}{{end}}"
	args := append([]string{"list", "-deps", "-tags", t.Tags, "-f", format}, t.packages()...)
	cmd := c.command(ctx, t, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("resolve %s %s: %w\n%s", t.Name, t.Version, err, lastLines(stderr.String()))
	}
	return strings.Fields(string(out)), nil
}

// build compiles the tool beside its place and moves it there when it is
// whole.
func (c *Cache) build(ctx context.Context, t Tool, p *progress) error {
	next := c.home(t) + ".new"
	if err := os.RemoveAll(next); err != nil {
		return fmt.Errorf("clear the way: %w", err)
	}
	if err := os.MkdirAll(next, 0o755); err != nil {
		return fmt.Errorf("make the place: %w", err)
	}
	args := append([]string{"build", "-v", "-o", next + "/", "-tags", t.Tags, "-ldflags", "-s -w " + t.LDFlags}, t.packages()...)
	cmd := c.command(ctx, t, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("read the build's output: %w", err)
	}
	p.begin(t)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start go: %w", err)
	}
	stop := p.tick()
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "go: downloading ") {
			continue
		}
		if isPackage(line) {
			p.compiled()
			continue
		}
		fmt.Fprintln(&said, line)
	}
	err = cmd.Wait()
	stop()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, lastLines(said.String()))
	}
	if err := t.link(next); err != nil {
		return err
	}
	if err := os.Rename(next, c.home(t)); err != nil {
		return fmt.Errorf("put into the cache: %w", err)
	}
	p.end(t)
	return nil
}

// link gives the programs the names the lab uses.
func (t Tool) link(dir string) error {
	for program, binary := range t.Programs {
		if _, err := os.Stat(filepath.Join(dir, binary)); err != nil {
			return fmt.Errorf("the build did not make %s: %w", binary, err)
		}
		if program == binary {
			continue
		}
		if err := os.Symlink(binary, filepath.Join(dir, program)); err != nil {
			return fmt.Errorf("name %s: %w", program, err)
		}
	}
	return nil
}

// isPackage tells the import paths that `go build -v` prints from what the
// compiler says.
func isPackage(line string) bool {
	return line != "" && !strings.HasPrefix(line, "#") && !strings.ContainsAny(line, " \t:")
}

func lastLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return "  " + strings.Join(lines, "\n  ")
}

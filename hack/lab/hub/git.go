// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/process"
)

// PolicyRepository is the repository that every instance has from the start.
const PolicyRepository = "policies.git"

// Git is the Git server's process.
func (h *Hub) Git() process.Spec {
	return h.process("git", h.lab, "serve-git", "--root", h.file("git"), "--listen", ":80")
}

// UpGit makes the policy repository and starts the Git server if it does not
// run.
func (h *Hub) UpGit(ctx context.Context) error {
	if err := h.repository(ctx, PolicyRepository); err != nil {
		return err
	}
	spec := h.Git()
	if _, err := process.Start(spec); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return spec.Wait(ctx, func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(h.instance.UplinkGit().String(), "80"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

func (h *Hub) repository(ctx context.Context, name string) error {
	dir := h.file("git", name)
	if exists(filepath.Join(dir, "lab-ready")) {
		return nil
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", "--initial-branch=main", dir},
		// Whoever reaches this server may push: it is a lab.
		{"-C", dir, "config", "http.receivepack", "true"},
	} {
		if out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("make repository %s: git %s: %w: %s", name, args[0], err, strings.TrimSpace(string(out)))
		}
	}
	return os.WriteFile(filepath.Join(dir, "lab-ready"), nil, 0o644)
}

// ServeGit serves the repositories below root over HTTP, for fetch and push,
// through Git's own http-backend, until the context ends.
func ServeGit(ctx context.Context, root, listen string) error {
	out, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return fmt.Errorf("find git's http-backend: %w", err)
	}
	server := &http.Server{
		Addr: listen,
		Handler: &cgi.Handler{
			Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
			Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + root},
		},
		ReadHeaderTimeout: 10 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve git: %w", err)
	}
	return nil
}

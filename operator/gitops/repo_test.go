// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"bytes"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// repo is a Git repository that is served over HTTP by Git's own server program, and a work tree to change it.
type repo struct {
	t    *testing.T
	bare string
	work string
	URL  string
	// hits counts requests for packs.
	packs atomic.Int64
}

// newRepo serves a repository. check may refuse requests.
func newRepo(t *testing.T, check func(http.ResponseWriter, *http.Request) bool) *repo {
	t.Helper()
	r := &repo{t: t, bare: filepath.Join(t.TempDir(), "policies.git"), work: t.TempDir()}
	r.git("", "init", "-q", "--bare", "-b", "main", r.bare)
	r.git("", "clone", "-q", r.bare, r.work)
	r.git(r.work, "checkout", "-q", "-b", "main")

	exe := strings.TrimSpace(r.git("", "--exec-path"))
	backend := &cgi.Handler{Path: filepath.Join(exe, "git-http-backend"), Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(r.bare), "GIT_HTTP_EXPORT_ALL=1"}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if check != nil && !check(w, req) {
			return
		}
		if req.Method == http.MethodPost {
			r.packs.Add(1)
		}
		backend.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	r.URL = srv.URL + "/policies.git"
	return r
}

func (r *repo) git(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.com", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.com",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// write puts files into the work tree; an empty text removes one.
func (r *repo) write(files map[string]string) {
	r.t.Helper()
	for name, text := range files {
		p := filepath.Join(r.work, name)
		if text == "" {
			if err := os.Remove(p); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// push commits everything and gives the revision as Fairlead writes it.
func (r *repo) push() string {
	r.t.Helper()
	r.git(r.work, "add", "-A")
	r.git(r.work, "commit", "-q", "--allow-empty", "-m", "change")
	r.git(r.work, "push", "-q", "-f", "origin", "main")
	return "main@sha1:" + strings.TrimSpace(r.git(r.work, "rev-parse", "HEAD"))
}

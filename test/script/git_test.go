// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// gitServer stands in a story's PolicySources for the server of its repositories, whose port nobody knows before.
const gitServer = "https://git.example/"

// git are the repositories of a story: folders of it, served over HTTP by Git's own server program.
type git struct {
	dir, url string
	commits  int
	heads    map[string]string // newest revision by URL, as Fairlead writes it
}

func newGit(t *testing.T, dir string) (*git, error) {
	t.Helper()
	g := &git{dir: dir, heads: map[string]string{}}
	exe, err := g.run("", "--exec-path")
	if err != nil {
		return nil, err
	}
	server := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(exe, "git-http-backend"), Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"},
	})
	t.Cleanup(server.Close)
	g.url = server.URL + "/"
	return g, nil
}

// run gives what git says. Authors and dates are fixed, so that equal stories have equal commits.
func (g *git) run(repository string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = filepath.Join(g.dir, repository)
	date := time.Unix(int64(1_750_000_000+g.commits), 0).UTC().Format(time.RFC3339)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_AUTHOR_DATE="+date,
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_COMMITTER_DATE="+date)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// commit makes the folder as it is the newest commit of its branch main.
func (g *git) commit(repository string) error {
	if _, err := os.Stat(filepath.Join(g.dir, repository, ".git")); errors.Is(err, os.ErrNotExist) {
		if _, err := g.run(repository, "init", "-q", "-b", "main"); err != nil {
			return err
		}
	}
	if _, err := g.run(repository, "add", "-A"); err != nil {
		return err
	}
	return g.change(repository, "commit", "-q", "-m", "change")
}

// revert undoes the newest commit by another.
func (g *git) revert(repository string) error {
	return g.change(repository, "revert", "--no-edit", "HEAD")
}

func (g *git) change(repository string, args ...string) error {
	g.commits++
	if _, err := g.run(repository, args...); err != nil {
		return err
	}
	head, err := g.run(repository, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	g.heads[g.url+repository] = "main@sha1:" + head
	return nil
}

// requestLook asks every PolicySource for a look, as `flux reconcile` does, so that it shows when what the story wrote has
// been dealt with.
func (c *cluster) requestLook() error {
	var list v1alpha1.PolicySourceList
	if err := c.kube.List(context.Background(), &list); err != nil {
		return err
	}
	c.looks++
	for i := range list.Items {
		src := &list.Items[i]
		before := src.DeepCopy()
		src.Annotations = map[string]string{meta.ReconcileRequestAnnotation: strconv.Itoa(c.looks)}
		if err := c.kube.Patch(context.Background(), src, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

// sourcesBusy names a PolicySource that has still to look at its repository.
func (c *cluster) sourcesBusy(g *git) string {
	var list v1alpha1.PolicySourceList
	if err := c.kube.List(context.Background(), &list); err != nil {
		return err.Error()
	}
	for _, src := range list.Items {
		name := "policy source " + client.ObjectKeyFromObject(&src).String()
		switch head := g.heads[src.Spec.Git.URL]; {
		case src.DeletionTimestamp != nil:
			return name + " is being deleted"
		case src.Annotations[meta.ReconcileRequestAnnotation] != src.Status.GetLastHandledReconcileRequest():
			return name + " was asked for a look"
		case src.Spec.Suspend:
		case src.Status.LastAttemptedRevision != head:
			return fmt.Sprintf("%s is at %q of %q", name, src.Status.LastAttemptedRevision, head)
		}
	}
	return ""
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func filePaths(files []File) []string {
	var out []string
	for _, f := range files {
		out = append(out, f.Path)
	}
	return out
}

func TestFetchGit(t *testing.T) {
	r := newRepo(t, nil)
	r.write(map[string]string{
		"policies/a.yaml": goodPolicy, "policies/sub/b.yml": goodPolicy, "policies/README.md": "no",
		"policies/.hidden/c.yaml": "no", "elsewhere/d.yaml": "no",
	})
	rev := r.push()
	req := gitRequest{URL: r.URL, Branch: "main", Path: "policies"}
	tree, err := fetchGit(t.Context(), req, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if tree.Revision != rev || tree.URL != r.URL {
		t.Errorf("revision %s of %s, want %s of %s", tree.Revision, tree.URL, rev, r.URL)
	}
	if diff := cmp.Diff([]string{"policies/a.yaml", "policies/sub/b.yml"}, filePaths(tree.Files)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if string(tree.Files[0].Data) != goodPolicy {
		t.Errorf("contents: %q", tree.Files[0].Data)
	}

	// An unchanged branch costs no pack.
	packs := r.packs.Load()
	req.Known = tree
	again, err := fetchGit(t.Context(), req, DefaultLimits())
	if err != nil || again != tree || r.packs.Load() != packs {
		t.Errorf("unchanged: same tree %t, packs %d → %d, %v", again == tree, packs, r.packs.Load(), err)
	}
	// A changed one is seen, also when history was rewritten.
	r.write(map[string]string{"policies/a.yaml": ""})
	r.git(r.work, "add", "-A")
	r.git(r.work, "commit", "-q", "--amend", "-m", "rewritten")
	rev = r.push()
	again, err = fetchGit(t.Context(), req, DefaultLimits())
	if err != nil || again.Revision != rev || len(again.Files) != 1 {
		t.Errorf("changed: %+v, %v", again, err)
	}
}

func TestFetchGitRefuses(t *testing.T) {
	r := newRepo(t, nil)
	r.write(map[string]string{
		"ok/a.yaml":  goodPolicy,
		"big/a.yaml": strings.Repeat("# filler, different in each line\n", 3000),
		"many/1.yml": "a: 1", "many/2.yml": "a: 2", "many/3.yml": "a: 3",
	})
	for from, to := range map[string]string{"link/passwd.yaml": "/etc/passwd", "linked": "ok"} {
		p := filepath.Join(r.work, from)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, p); err != nil {
			t.Fatal(err)
		}
	}
	r.push()
	limits := DefaultLimits()
	limits.FileBytes, limits.Files = 10_000, 2
	for _, tt := range []struct {
		path, branch, url, want string
		build                   bool
		limits                  Limits
	}{
		{"link", "main", r.URL, "link/passwd.yaml: symlinks are refused", true, limits},
		{"linked", "main", r.URL, "linked: no such folder", true, limits},
		{"nowhere", "main", r.URL, "nowhere: no such folder", true, limits},
		{"big", "main", r.URL, "big/a.yaml: 99000 bytes are more than the 10000", true, limits},
		{"many", "main", r.URL, "many/3.yml: more than 2 YAML files", true, limits},
		{"ok", "main", r.URL, "unpacks to more than 1000 bytes", true, Limits{FetchBytes: 1000, FileBytes: 1000, Files: 9}},
		{"ok", "absent", r.URL, "has no branch \"absent\"", false, limits},
		{"ok", "main", r.URL + "x", "list the branches of", false, limits},
		{"ok", "main", "http://127.0.0.1:1/x", "list the branches of", false, limits},
	} {
		t.Run(tt.want, func(t *testing.T) {
			tree, err := fetchGit(t.Context(), gitRequest{URL: tt.url, Branch: tt.branch, Path: tt.path}, tt.limits)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("fetchGit = %v, %v; want %q", tree, err, tt.want)
			}
			if isBuildError(err) != tt.build || isFetchError(err) == tt.build {
				t.Errorf("%v: build error %t, fetch error %t", err, isBuildError(err), isFetchError(err))
			}
		})
	}
}

func TestFetchGitLogsIn(t *testing.T) {
	r := newRepo(t, func(w http.ResponseWriter, req *http.Request) bool {
		user, password, _ := req.BasicAuth()
		if user == "me" && password == "secret" || req.Header.Get("Authorization") == "Bearer token" {
			return true
		}
		w.Header().Set("WWW-Authenticate", "Basic")
		http.Error(w, "no", http.StatusUnauthorized)
		return false
	})
	r.write(map[string]string{"a.yaml": goodPolicy})
	r.push()
	for _, tt := range []struct {
		name   string
		secret map[string][]byte
		ok     bool
	}{
		{"nobody", nil, false},
		{"wrong", map[string][]byte{"username": []byte("me"), "password": []byte("wrong")}, false},
		{"password", map[string][]byte{"username": []byte("me"), "password": []byte("secret")}, true},
		{"token", map[string][]byte{"bearerToken": []byte("token")}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			login, err := loginFor(r.URL, tt.secret)
			if err != nil {
				t.Fatal(err)
			}
			_, err = fetchGit(t.Context(), gitRequest{URL: r.URL, Branch: "main", Login: login}, DefaultLimits())
			if (err == nil) != tt.ok {
				t.Errorf("fetchGit: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "wrong") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}

func TestLoginRefuses(t *testing.T) {
	password := map[string][]byte{"username": []byte("me"), "password": []byte("secret")}
	for _, tt := range []struct {
		url    string
		secret map[string][]byte
		want   string
	}{
		{"http://git.example.com/p", password, "only sent over https"},
		{"https://me:secret@git.example.com/p", nil, "put them into a Secret"},
		{"ssh://git@git.example.com/p", nil, "ssh needs a Secret"},
		{"ssh://git@git.example.com/p", map[string][]byte{"identity": []byte("x")}, "ssh needs a Secret"},
		{"ssh://git@git.example.com/p", map[string][]byte{"identity": []byte("x"), "known_hosts": []byte("y")}, "read identity"},
	} {
		_, err := loginFor(tt.url, tt.secret)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("loginFor(%s): %v, want %q", tt.url, err, tt.want)
		}
		if errors.Is(err, os.ErrNotExist) {
			t.Errorf("loginFor(%s) looked for a file", tt.url)
		}
	}
	if _, err := loginFor("https://git.example.com/p", password); err != nil {
		t.Errorf("a password over https: %v", err)
	}
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tarball packs files; a text that begins with "->" is a symlink.
func tarball(t *testing.T, files [][2]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, f := range files {
		h := &tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1])), Typeflag: tar.TypeReg}
		body := f[1]
		if to, link := strings.CutPrefix(body, "->"); link {
			h.Typeflag, h.Linkname, h.Size, body = tar.TypeSymlink, to, 0, ""
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestFetchArtifact(t *testing.T) {
	good := tarball(t, [][2]string{{"p/a.yaml", goodPolicy}, {"p/b.txt", "no"}, {"q/c.yaml", goodPolicy}, {"z/link.yaml", "->/etc/passwd"}})
	sum := sha256.Sum256(good)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/a.tar.gz" {
			http.NotFound(w, req)
			return
		}
		_, _ = w.Write(good)
	}))
	defer srv.Close()
	a := artifact{origin: "oci://x", url: srv.URL + "/a.tar.gz", digest: digest, revision: "v1@sha256:1"}

	tree, err := fetchArtifact(t.Context(), a, "p", DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"p/a.yaml"}, filePaths(tree.Files)); diff != "" || tree.Revision != a.revision || tree.URL != a.origin {
		t.Errorf("%s %s (-want +got):\n%s", tree.URL, tree.Revision, diff)
	}
	for _, tt := range []struct {
		name, dir, want string
		a               artifact
		limits          Limits
		build           bool
	}{
		{"symlink", "z", "z/link.yaml: symlinks are refused", a, DefaultLimits(), true},
		{"symlink below the root", "", "z/link.yaml: symlinks are refused", a, DefaultLimits(), true},
		{"no folder", "nowhere", "no such folder", a, DefaultLimits(), true},
		{"wrong digest", "p", "digest", artifact{url: a.url, digest: "sha256:" + strings.Repeat("0", 64), revision: "r"}, DefaultLimits(), false},
		{"no digest", "p", "empty digest", artifact{url: a.url, revision: "r"}, DefaultLimits(), false},
		{"gone", "p", "not found", artifact{url: srv.URL + "/b", digest: digest, revision: "r"}, DefaultLimits(), false},
		{"too large", "p", "greater than the max", a, Limits{FetchBytes: 50, FileBytes: 50, Files: 5}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree, err := fetchArtifact(t.Context(), tt.a, tt.dir, tt.limits)
			if err == nil || !strings.Contains(err.Error(), tt.want) || isBuildError(err) != tt.build {
				t.Errorf("fetchArtifact = %v, %v; want %q", tree, err, tt.want)
			}
		})
	}
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

func TestQualify(t *testing.T) {
	for name, want := range map[string]string{
		"busybox":                  "docker.io/library/busybox:latest",
		"busybox:1":                "docker.io/library/busybox:1",
		"fairlead/agent:dev":       "docker.io/fairlead/agent:dev",
		"ghcr.io/fairlead/a:1":     "ghcr.io/fairlead/a:1",
		"localhost/a":              "localhost/a:latest",
		"registry:5000/deep/er/a":  "registry:5000/deep/er/a:latest",
		"lab.fairlead.dev/pause:1": "lab.fairlead.dev/pause:1",
	} {
		if got := Qualify(name); got != want {
			t.Errorf("Qualify(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	img, err := Parse("fairlead/agent:dev=bin/agent,bin/cni=/opt/fairlead/cni")
	if err != nil {
		t.Fatal(err)
	}
	if img.Name != "docker.io/fairlead/agent:dev" {
		t.Errorf("name %q", img.Name)
	}
	want := []File{{"bin/agent", "/agent"}, {"bin/cni", "/opt/fairlead/cni"}}
	if len(img.Files) != 2 || img.Files[0] != want[0] || img.Files[1] != want[1] {
		t.Errorf("files %v, want %v", img.Files, want)
	}
	for _, bad := range []string{"", "a", "a=", "=b", "a=b,", "a=b=c", "a=b=/x/../y", "a==/x", "a=b=/x/"} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("fairlead/agent:dev=bin/agent,bin/cni=/opt/fairlead/cni")
	f.Add("a=b=/..")
	f.Fuzz(func(t *testing.T, arg string) {
		img, err := Parse(arg)
		if err != nil {
			return
		}
		if img.Name == "" || len(img.Files) == 0 {
			t.Fatalf("%q: accepted without a name or files: %+v", arg, img)
		}
		for _, file := range img.Files {
			if !path.IsAbs(file.Path) || path.Clean(file.Path) != file.Path {
				t.Fatalf("%q: place %q", arg, file.Path)
			}
		}
	})
}

func TestArchiveHoldsTheFilesAndIsReproducible(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "run")
	if err := os.WriteFile(script, []byte("#!/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte("c"), 0o600); err != nil {
		t.Fatal(err)
	}
	img := Image{Name: "t/x:1", Files: []File{{script, "/run"}, {config, "/etc/x/config"}}}
	first, second := filepath.Join(dir, "1.tar"), filepath.Join(dir, "2.tar")
	digest, err := img.Write(first)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := img.Write(second); err != nil || again != digest {
		t.Errorf("second digest %s, %v; first %s", again, err, digest)
	}
	a, b := read(t, first), read(t, second)
	if !bytes.Equal(a, b) {
		t.Error("the same files gave other bytes")
	}

	parts := untar(t, a)
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(parts["manifest.json"].content, &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest: %v, %d entries", err, len(manifest))
	}
	if manifest[0].RepoTags[0] != img.Name {
		t.Errorf("tags %v", manifest[0].RepoTags)
	}
	if c := string(parts[manifest[0].Config].content); !strings.Contains(c, `"Entrypoint":["/run"]`) {
		t.Errorf("configuration %s", c)
	}
	layer := untar(t, parts[manifest[0].Layers[0]].content)
	if f := layer["run"]; string(f.content) != "#!/x" || f.mode != 0o755 {
		t.Errorf("/run: %q, mode %o", f.content, f.mode)
	}
	if f := layer["etc/x/config"]; string(f.content) != "c" || f.mode != 0o644 {
		t.Errorf("/etc/x/config: %q, mode %o", f.content, f.mode)
	}
	if _, ok := layer["etc/x/"]; !ok {
		t.Error("the directory above a file is missing")
	}
}

func TestDynamicProgramsAreRefused(t *testing.T) {
	// The shell is dynamically linked on every distribution the lab is for.
	img := Image{Name: "t/sh:1", Files: []File{{"/bin/sh", "/sh"}}}
	_, err := img.Write(filepath.Join(t.TempDir(), "x.tar"))
	if err == nil || !strings.Contains(err.Error(), "dynamically linked") {
		t.Errorf("got %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	img := Image{Name: "t/x:1", Files: []File{{"/does/not/exist", "/x"}}}
	if _, err := img.Write(filepath.Join(t.TempDir(), "x.tar")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestPauseCompilesStatic(t *testing.T) {
	img, err := Pause(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := checkStatic(img.Files[0].Source); err != nil {
		t.Error(err)
	}
}

type entry struct {
	content []byte
	mode    int64
}

func untar(t *testing.T, archive []byte) map[string]entry {
	t.Helper()
	files := map[string]entry{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = entry{content, h.Mode}
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

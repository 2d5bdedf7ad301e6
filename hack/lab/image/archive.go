// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package image builds container images from static binaries, without a
// registry and without a build daemon: one layer, one configuration, in the
// archive form that `docker save` writes and containerd imports. The same
// files give the same bytes, so an image's digest tells whether a node has it.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// File is one file of an image.
type File struct {
	Source string // on this machine
	Path   string // in the image, absolute
}

// Image is a name and the files in it; the first is what it runs.
type Image struct {
	Name  string
	Files []File
}

// Parse reads NAME:TAG=BINARY[,FILE=/PATH/IN/IMAGE…]. A file without a path
// goes to the image's root.
func Parse(arg string) (Image, error) {
	name, list, ok := strings.Cut(arg, "=")
	if !ok || name == "" || list == "" {
		return Image{}, fmt.Errorf("image %q: want name:tag=binary[,file=/path/in/image…]", arg)
	}
	img := Image{Name: Qualify(name)}
	for item := range strings.SplitSeq(list, ",") {
		source, place, placed := strings.Cut(item, "=")
		if !placed {
			place = "/" + filepath.Base(source)
		}
		if source == "" || !path.IsAbs(place) || path.Clean(place) != place {
			return Image{}, fmt.Errorf("image %q: file %q: want file or file=/path/in/image", arg, item)
		}
		img.Files = append(img.Files, File{Source: source, Path: place})
	}
	return img, nil
}

// Qualify completes an image's name the way the kubelet does, so that a pod
// that names it briefly finds it.
func Qualify(name string) string {
	host, rest, ok := strings.Cut(name, "/")
	if !ok {
		name = "docker.io/library/" + name
	} else if !strings.ContainsAny(host, ".:") && host != "localhost" {
		name = "docker.io/" + host + "/" + rest
	}
	if base := name[strings.LastIndex(name, "/")+1:]; !strings.Contains(base, ":") {
		name += ":latest"
	}
	return name
}

// Write writes the image's archive to file and returns its digest.
func (img Image) Write(file string) (digest string, err error) {
	layer, err := img.layer()
	if err != nil {
		return "", fmt.Errorf("image %s: %w", img.Name, err)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config":  map[string]any{"Entrypoint": []string{img.Files[0].Path}, "Env": []string{"PATH=/:/usr/bin:/bin"}},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum(layer)}},
		"history": []any{map[string]any{"created": "1970-01-01T00:00:00Z", "created_by": "fairlead lab"}},
	})
	if err != nil {
		return "", fmt.Errorf("image %s: encode configuration: %w", img.Name, err)
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{img.Name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return "", fmt.Errorf("image %s: encode manifest: %w", img.Name, err)
	}
	f, err := os.Create(file)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", img.Name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	for _, part := range []struct {
		name    string
		content []byte
	}{{"manifest.json", manifest}, {"config.json", config}, {"layer.tar", layer}} {
		if err := add(w, part.name, 0o644, int64(len(part.content)), bytes.NewReader(part.content)); err != nil {
			return "", fmt.Errorf("image %s: %w", img.Name, err)
		}
	}
	return sum(config), w.Close()
}

func (img Image) layer() ([]byte, error) {
	if len(img.Files) == 0 {
		return nil, errors.New("holds no files")
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{"/": true, ".": true}
	files := slices.Clone(img.Files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range files {
		if err := addParents(w, path.Dir(f.Path), made); err != nil {
			return nil, err
		}
		if err := addFile(w, f); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

func addParents(w *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	made[dir] = true
	if err := addParents(w, path.Dir(dir), made); err != nil {
		return err
	}
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
}

func addFile(w *tar.Writer, f File) error {
	if err := checkStatic(f.Source); err != nil {
		return err
	}
	in, err := os.Open(f.Source)
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", f.Source)
	}
	mode := int64(0o644)
	if st.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return add(w, f.Path[1:], mode, st.Size(), in)
}

func add(w *tar.Writer, name string, mode, size int64, content io.Reader) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0)}); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := io.Copy(w, content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// checkStatic refuses programs that need a dynamic loader: the image has
// none, and the container would only say "no such file".
func checkStatic(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		if errors.As(err, new(*elf.FormatError)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil // no program
		}
		return fmt.Errorf("read file: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked: build it with CGO_ENABLED=0", file)
		}
	}
	return nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fluxcd/pkg/http/fetch"
	"github.com/fluxcd/pkg/tar"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

var fluxSources = schema.GroupVersion{Group: "source.toolkit.fluxcd.io", Version: "v1"}

// artifact is what a Flux source's status says about its newest tarball.
type artifact struct {
	origin   string // the repository, for people
	url      string
	digest   string
	revision string
}

// findArtifact reads a Flux source. Sources are read without their Go types and without a watch, because their CRDs
// may not be installed, or come later.
func findArtifact(ctx context.Context, r client.Reader, namespace string, ref v1alpha1.SourceReference) (artifact, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(fluxSources.WithKind(ref.Kind))
	err := r.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ref.Name}, u)
	switch {
	case meta.IsNoMatchError(err):
		return artifact{}, notFetched("this cluster has no kind %s of %s: install Flux's source-controller or use spec.git", ref.Kind, fluxSources)
	case apierrors.IsNotFound(err):
		return artifact{}, notFetched("there is no %s %s/%s", ref.Kind, namespace, ref.Name)
	case err != nil:
		return artifact{}, notFetched("read %s %s/%s: %w", ref.Kind, namespace, ref.Name, err)
	}
	field := func(path ...string) string {
		s, _, _ := unstructured.NestedString(u.Object, path...)
		return s
	}
	a := artifact{
		url:      field("status", "artifact", "url"),
		digest:   field("status", "artifact", "digest"),
		revision: field("status", "artifact", "revision"),
	}
	if a.url == "" || a.revision == "" {
		return artifact{}, notFetched("%s %s/%s has no artifact yet", ref.Kind, namespace, ref.Name)
	}
	switch ref.Kind {
	case "Bucket":
		a.origin = field("spec", "endpoint") + "/" + field("spec", "bucketName")
	case "ExternalArtifact":
		a.origin = a.url
	default:
		a.origin = field("spec", "url")
	}
	return a, nil
}

// fetchArtifact downloads, verifies and unpacks a tarball into a folder that is gone afterwards.
func fetchArtifact(ctx context.Context, a artifact, dir string, limits Limits) (*Tree, error) {
	tmp, err := os.MkdirTemp("", "fairlead-artifact-")
	if err != nil {
		return nil, notFetched("make a folder for the artifact: %w", err)
	}
	defer os.RemoveAll(tmp)

	var links []string
	noteLinks := tar.WithFilter(func(name string, fi os.FileInfo) bool {
		link := fi.Mode()&os.ModeSymlink != 0
		if link {
			links = append(links, filepath.ToSlash(filepath.Clean(name)))
		}
		return link
	})
	fetcher := fetch.New(
		fetch.WithMaxDownloadSize(int(limits.FetchBytes)),
		fetch.WithUntar(tar.WithMaxUntarSize(int(limits.FetchBytes)), noteLinks),
	)
	if err := fetcher.FetchWithContext(ctx, a.url, a.digest, tmp); err != nil {
		return nil, notFetched("fetch artifact %s: %w", a.url, err)
	}
	if i := slices.IndexFunc(links, func(l string) bool { return dir == "" || l == dir || within(l, dir) }); i >= 0 {
		return nil, &BuildError{Problems: []Problem{{Path: links[i], Message: "symlinks are refused: they could lead out of the repository"}}}
	}
	files, err := readFolder(tmp, dir, limits)
	if err != nil {
		return nil, err
	}
	return &Tree{URL: a.origin, Revision: a.revision, Files: files}, nil
}

func within(p, dir string) bool {
	return len(p) > len(dir) && p[:len(dir)] == dir && p[len(dir)] == '/'
}

// readFolder reads through os.Root, which no path can leave.
func readFolder(base, dir string, limits Limits) ([]File, error) {
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, notFetched("open the artifact: %w", err)
	}
	defer root.Close()
	start := dir
	if start == "" {
		start = "."
	}
	c := collector{limits: limits}
	err = fs.WalkDir(root.FS(), start, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() || !wanted(p) {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("look at %s: %w", p, err)
		}
		return c.add(p, info.Size(), func() ([]byte, error) { return fs.ReadFile(root.FS(), p) })
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &BuildError{Problems: []Problem{{Path: dir, Message: "no such folder in the artifact"}}}
	}
	if err != nil {
		return nil, err
	}
	return c.files, nil
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-mesh/fairlead/hack/lab/image"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

// LoadImage builds the image and brings it to all nodes of the named
// clusters, or of all. Nodes that have just this image are left alone.
func (l *Lab) LoadImage(ctx context.Context, tools *toolchain.Cache, img image.Image, clusters ...string) error {
	nodes, err := l.nodes(clusters...)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(l.path("images"), "load-*.tar")
	if err != nil {
		return fmt.Errorf("image %s: %w", img.Name, err)
	}
	archive := f.Name()
	_ = f.Close()
	defer func() { _ = os.Remove(archive) }() // `down` takes what stays
	digest, err := img.Write(archive)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		g.Go(func() error { return n.Import(ctx, tools, archive, img.Name, digest) })
	}
	return g.Wait()
}

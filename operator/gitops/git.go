// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/memory"
)

// gitRequest is a repository, a branch of it and how to log in.
type gitRequest struct {
	URL    string
	Branch string
	Path   string
	Login  gitLogin
	// Known is the tree of the last fetch; it is given back if the branch still points at its commit.
	Known *Tree
}

// gitLogin is what a PolicySource's Secret holds, in go-git's terms.
type gitLogin struct {
	auth     transport.AuthMethod
	caBundle []byte
}

// fetchGit asks for the branch's tip and, if it is new, fetches that one commit into memory. The work tree is never
// written out: files are read from Git's own objects, where a symlink is just an entry that can be refused.
func fetchGit(ctx context.Context, req gitRequest, limits Limits) (*Tree, error) {
	budget := &budget{left: limits.FetchBytes}
	store := &limitedStorage{Storage: memory.NewStorage(), budget: budget}
	remote := git.NewRemote(store, &config.RemoteConfig{Name: "origin", URLs: []string{req.URL}})

	branch := plumbing.NewBranchReferenceName(req.Branch)
	tip, err := branchTip(ctx, remote, req, branch)
	if err != nil {
		return nil, err
	}
	revision := fmt.Sprintf("%s@sha1:%s", req.Branch, tip)
	if req.Known != nil && req.Known.Revision == revision && req.Known.URL == req.URL {
		return req.Known, nil
	}

	tracking := plumbing.NewRemoteReferenceName("origin", req.Branch)
	err = remote.FetchContext(ctx, &git.FetchOptions{
		RefSpecs: []config.RefSpec{config.RefSpec("+" + branch.String() + ":" + tracking.String())},
		Depth:    1,
		Tags:     git.NoTags,
		Auth:     req.Login.auth,
		CABundle: req.Login.caBundle,
	})
	if errors.Is(err, errTooLarge) {
		return nil, &BuildError{Problems: []Problem{{Path: req.URL, Message: fmt.Sprintf("the repository unpacks to more than %d bytes", limits.FetchBytes)}}}
	}
	if err != nil && !errors.Is(err, git.NoErrAlreadyUpToDate) {
		return nil, notFetched("fetch %s of %s: %w", req.Branch, req.URL, err)
	}
	ref, err := store.Reference(tracking)
	if err != nil {
		return nil, notFetched("fetch %s of %s: %w", req.Branch, req.URL, err)
	}
	files, err := readCommit(store, ref.Hash(), req.Path, limits)
	if err != nil {
		return nil, err
	}
	// The branch may have moved between the two requests; the revision is that of what was read.
	return &Tree{URL: req.URL, Revision: fmt.Sprintf("%s@sha1:%s", req.Branch, ref.Hash()), Files: files}, nil
}

func branchTip(ctx context.Context, remote *git.Remote, req gitRequest, branch plumbing.ReferenceName) (plumbing.Hash, error) {
	refs, err := remote.ListContext(ctx, &git.ListOptions{Auth: req.Login.auth, CABundle: req.Login.caBundle})
	if err != nil {
		return plumbing.ZeroHash, notFetched("list the branches of %s: %w", req.URL, err)
	}
	for _, r := range refs {
		if r.Name() == branch && r.Type() == plumbing.HashReference {
			return r.Hash(), nil
		}
	}
	return plumbing.ZeroHash, notFetched("%s has no branch %q", req.URL, req.Branch)
}

func readCommit(store *limitedStorage, hash plumbing.Hash, dir string, limits Limits) ([]File, error) {
	commit, err := object.GetCommit(store, hash)
	if err != nil {
		return nil, notFetched("read commit %s: %w", hash, err)
	}
	tree, err := commit.Tree()
	if err != nil {
		return nil, notFetched("read the tree of commit %s: %w", hash, err)
	}
	prefix := ""
	if dir != "" {
		if tree, err = tree.Tree(dir); err != nil {
			return nil, &BuildError{Problems: []Problem{{Path: dir, Message: "no such folder in the repository"}}}
		}
		prefix = dir + "/"
	}
	return readTree(tree, prefix, limits)
}

func readTree(tree *object.Tree, prefix string, limits Limits) ([]File, error) {
	c := collector{limits: limits}
	walker := object.NewTreeWalker(tree, true, nil)
	defer walker.Close()
	for {
		name, entry, err := walker.Next()
		if errors.Is(err, io.EOF) {
			return c.files, nil
		}
		if err != nil {
			return nil, notFetched("read the tree: %w", err)
		}
		name = prefix + name
		switch {
		case entry.Mode == filemode.Symlink:
			return nil, &BuildError{Problems: []Problem{{Path: name, Message: "symlinks are refused: they could lead out of the repository"}}}
		case entry.Mode == filemode.Submodule:
			return nil, &BuildError{Problems: []Problem{{Path: name, Message: "submodules are not followed"}}}
		case !entry.Mode.IsFile() || !wanted(name):
			continue
		}
		blob, err := tree.TreeEntryFile(&entry)
		if err != nil {
			return nil, notFetched("read %s: %w", name, err)
		}
		if err := c.add(name, blob.Size, func() ([]byte, error) { return blobBytes(blob) }); err != nil {
			return nil, err
		}
	}
}

func blobBytes(f *object.File) ([]byte, error) {
	r, err := f.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

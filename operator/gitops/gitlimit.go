// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"
)

var errTooLarge = errors.New("repository is too large")

// budget is how many bytes a fetch may still unpack.
type budget struct{ left int64 }

func (b *budget) take(n int64) error {
	if b.left -= n; b.left < 0 {
		return errTooLarge
	}
	return nil
}

// limitedStorage keeps Git objects in memory until the budget is spent. Counting happens while an object inflates,
// because a small pack can unpack to any size.
type limitedStorage struct {
	*memory.Storage
	budget *budget
}

func (s *limitedStorage) NewEncodedObject() plumbing.EncodedObject {
	return &limitedObject{budget: s.budget}
}

func (s *limitedStorage) SetEncodedObject(o plumbing.EncodedObject) (plumbing.Hash, error) {
	if _, counted := o.(*limitedObject); !counted {
		if err := s.budget.take(o.Size()); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	return s.Storage.SetEncodedObject(o)
}

type limitedObject struct {
	plumbing.MemoryObject
	budget *budget
}

func (o *limitedObject) Writer() (io.WriteCloser, error) { return o, nil }

func (o *limitedObject) Write(p []byte) (int, error) {
	if err := o.budget.take(int64(len(p))); err != nil {
		return 0, err
	}
	return o.MemoryObject.Write(p)
}

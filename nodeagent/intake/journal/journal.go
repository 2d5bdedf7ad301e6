// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// Journal is a file that changes are appended to. It serves one goroutine.
type Journal struct {
	path   string
	origin string

	found  format   // of the file that Restore read
	file   *os.File // open for appending; nil before the first Append and after a failure
	tail   scanned  // what the file holds; what lies behind tail.end is not ours
	notDue int64    // compacting failed: not before the file is this long
}

// format of a file that was restored from.
type format int

const (
	nothing format = iota // nothing usable: the next Append begins a new file
	version1
	version2
)

// New makes a journal that touches no file yet. origin names who writes: records that somebody else wrote may lack what
// only we would have kept, so they are read, but the stream does not go on after them.
func New(path, origin string) *Journal { return &Journal{path: path, origin: origin} }

// Restore reads the last whole state: changes in order, the last of a key counts. It fails with fs.ErrNotExist if there is
// no file, ErrForeign or ErrDamaged; each may have been called before a failure. It is called at most once, before Append.
func (j *Journal) Restore(each func(*relayv1.Change) error) (Mark, error) {
	m, err := j.restore(each)
	if err != nil {
		j.found = nothing
		if !errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("read snapshot %s: %w", j.path, err)
		}
		return Mark{}, err
	}
	return m, nil
}

func (j *Journal) restore(each func(*relayv1.Change) error) (Mark, error) {
	f, err := os.Open(j.path)
	if err != nil {
		return Mark{}, err
	}
	defer f.Close()
	magic := make([]byte, len(magicV2))
	if _, err := io.ReadFull(f, magic); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Mark{}, ErrDamaged
	} else if err != nil {
		return Mark{}, err
	}
	switch string(magic) {
	case magicV1:
		j.found = version1
		clusters, err := readV1(f, each)
		return Mark{Clusters: clusters}, err
	case magicV2:
		j.found = version2
		return j.restoreV2(f, each)
	}
	return Mark{}, ErrForeign
}

func (j *Journal) restoreV2(f *os.File, each func(*relayv1.Change) error) (Mark, error) {
	var err error
	if j.tail, err = scan(f); err != nil {
		return Mark{}, err
	}
	if _, err := f.Seek(int64(len(magicV2)), io.SeekStart); err != nil {
		return Mark{}, err
	}
	if err := replay(f, j.tail, each); err != nil {
		return Mark{}, err
	}
	m := j.tail.mark
	if j.tail.origin != j.origin {
		m.At = nil
	}
	return m, nil
}

// Encode gives a change as Append takes it.
func Encode(c *relayv1.Change) ([]byte, error) {
	data, err := proto.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode change of %s: %w", c.GetKey(), err)
	}
	return data, nil
}

// Append writes encoded changes, and a mark if the state is whole with them. When it returns they are on the disk; when it
// fails nothing of them counts, and they may be appended again.
func (j *Journal) Append(changes [][]byte, mark *Mark) error {
	if err := j.append(changes, mark); err != nil {
		return fmt.Errorf("write snapshot %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) append(changes [][]byte, mark *Mark) error {
	if j.file == nil {
		if err := j.open(); err != nil {
			return err
		}
	}
	next, buf, err := j.frame(changes, mark)
	if err != nil {
		return err
	}
	_, err = j.file.WriteAt(buf, j.tail.end.offset)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		// What is half written is cut away, now or when the file is opened again.
		err = errors.Join(err, j.file.Truncate(j.tail.end.offset), j.file.Close())
		j.file = nil
		return err
	}
	j.tail = next
	return nil
}

// frame makes the frames to write, and what the file will hold with them.
func (j *Journal) frame(changes [][]byte, mark *Mark) (scanned, []byte, error) {
	next := j.tail
	size := headSize + len(j.origin) // a mark is no longer, as a rule
	for _, c := range changes {
		size += headSize + len(c)
	}
	buf := make([]byte, 0, size)
	if next.origin != j.origin {
		buf = next.end.chain.add(buf, frameOrigin, []byte(j.origin))
		next.origin = j.origin
	}
	for _, c := range changes {
		buf = next.end.chain.add(buf, frameChange, c)
		next.changes++
		next.size += headSize + int64(len(c))
	}
	if mark != nil {
		short := *mark
		if slices.EqualFunc(mark.Clusters, next.mark.Clusters, func(a, b *relayv1.ClusterState) bool { return proto.Equal(a, b) }) {
			short.Clusters = nil // as in the last mark
		} else {
			next.mark.Clusters = mark.Clusters
		}
		payload, err := encodeMark(short)
		if err != nil {
			return next, nil, fmt.Errorf("encode the mark: %w", err)
		}
		buf = next.end.chain.add(buf, frameMark, payload)
		next.mark.At = mark.At
	}
	next.end.offset += int64(len(buf))
	return next, buf, nil
}

// Size is how long the file is, in bytes.
func (j *Journal) Size() int64 { return j.tail.end.offset }

// open opens the file for appending: the one that was restored, or a new one.
func (j *Journal) open() error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return err
	}
	switch j.found {
	case version2:
		return j.reopen()
	case version1:
		return j.upgrade()
	}
	return j.replace(func(*writer) error { return nil })
}

// reopen cuts away what lies behind the last state.
func (j *Journal) reopen() error {
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.Truncate(j.tail.end.offset); err != nil {
		return errors.Join(err, f.Close())
	}
	j.file = f
	return nil
}

// upgrade writes the file of version 1 anew.
func (j *Journal) upgrade() error {
	old, err := os.Open(j.path)
	if err != nil {
		return err
	}
	defer old.Close()
	return j.replace(func(w *writer) error {
		clusters, err := readV1(old, func(c *relayv1.Change) error {
			data, err := Encode(c)
			if err != nil {
				return err
			}
			return w.change(data)
		})
		if err != nil {
			return err
		}
		return w.mark(Mark{Clusters: clusters})
	})
}

// Close lets go of the file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	f := j.file
	j.file = nil
	return f.Close()
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protowire"
)

// slack is how much a file may be outdated however small it is.
const slack = 1 << 20

// Compact copies the file without what is outdated, if that is more than half of it (and more than a MiB). So each byte
// appended costs at most about one more. records is how many records are held. It may follow an Append with a mark; without
// one it does nothing. A failure leaves the file as it is, and Append goes on.
func (j *Journal) Compact(records int) error {
	if j.file == nil || j.tail.changes == 0 || j.tail.end.offset < j.notDue {
		return nil
	}
	current := j.tail.size / int64(j.tail.changes) * int64(records)
	if j.tail.end.offset <= 2*current+slack {
		return nil
	}
	if err := j.compact(); err != nil {
		j.notDue = j.tail.end.offset + max(current/2, slack)
		return fmt.Errorf("compact snapshot %s: %w", j.path, err)
	}
	return nil
}

func (j *Journal) compact() error {
	// What is written but not marked is not part of a state: leave it where it is until it is.
	last, marked, err := j.newest()
	if err != nil || !marked {
		return err
	}
	n := uint32(0)
	mark := j.tail.mark
	return j.replace(func(w *writer) error {
		err := frames(j.from(), j.tail.end.offset, func(kind frameKind, payload []byte) error {
			if kind != frameChange {
				return nil
			}
			n++
			key, put, err := peek(payload)
			if err != nil || !put || last[hash(key)] != n {
				return err
			}
			return w.change(payload)
		})
		if err != nil {
			return err
		}
		return w.mark(mark)
	})
}

// newest finds the number of the last change of each key, counted from 1, and whether the file ends with a mark. Keys are
// known by 128 bits of their SHA-256, which nobody can make meet.
func (j *Journal) newest() (last map[[16]byte]uint32, marked bool, err error) {
	last = map[[16]byte]uint32{}
	n := uint32(0)
	err = frames(j.from(), j.tail.end.offset, func(kind frameKind, payload []byte) error {
		marked = kind == frameMark
		if kind != frameChange {
			return nil
		}
		n++
		key, _, err := peek(payload)
		if err == nil {
			last[hash(key)] = n
		}
		return err
	})
	return last, marked, err
}

// from reads the file from its first frame on.
func (j *Journal) from() io.Reader {
	first := int64(len(magicV2))
	return io.NewSectionReader(j.file, first, j.tail.end.offset-first)
}

func hash(key []byte) [16]byte {
	sum := sha256.Sum256(key)
	return [16]byte(sum[:16])
}

// peek reads the key of an encoded relayv1.Change, and whether it has a record, without reading the record.
func peek(change []byte) (key []byte, put bool, err error) {
	for len(change) > 0 {
		field, kind, n := protowire.ConsumeTag(change)
		if n < 0 {
			return nil, false, fmt.Errorf("%w: %w", ErrDamaged, protowire.ParseError(n))
		}
		change = change[n:]
		n = protowire.ConsumeFieldValue(field, kind, change)
		if n < 0 {
			return nil, false, fmt.Errorf("%w: %w", ErrDamaged, protowire.ParseError(n))
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(change)
			switch field {
			case 1:
				key = value
			case 2:
				put = true
			}
		}
		change = change[n:]
	}
	return key, put, nil
}

// writer fills a new file.
type writer struct {
	out  *bufio.Writer
	tail scanned
	buf  []byte
}

func (w *writer) add(kind frameKind, payload []byte) error {
	w.buf = w.tail.end.chain.add(w.buf[:0], kind, payload)
	w.tail.end.offset += int64(len(w.buf))
	_, err := w.out.Write(w.buf)
	return err
}

func (w *writer) change(payload []byte) error {
	w.tail.changes++
	w.tail.size += headSize + int64(len(payload))
	return w.add(frameChange, payload)
}

func (w *writer) mark(m Mark) error {
	w.tail.mark = m
	payload, err := encodeMark(m)
	if err != nil {
		return fmt.Errorf("encode the mark: %w", err)
	}
	return w.add(frameMark, payload)
}

// replace puts a new file in the place of the old one, once it is on the disk as a whole: whoever loses power on the way
// has the old one. The new one stays open for appending.
func (j *Journal) replace(fill func(*writer) error) error {
	f, tail, err := j.create(fill)
	if err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close() // it has no name any more
	}
	j.file, j.tail, j.found, j.notDue = f, tail, version2, 0
	return syncDir(filepath.Dir(j.path))
}

func (j *Journal) create(fill func(*writer) error) (f *os.File, tail scanned, err error) {
	tmp := j.path + ".new"
	if f, err = os.OpenFile(tmp, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600); err != nil {
		return nil, tail, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(tmp))
		}
	}()
	w := &writer{out: bufio.NewWriterSize(f, readAhead)}
	w.tail.origin, w.tail.end.offset = j.origin, int64(len(magicV2))
	if _, err := w.out.WriteString(magicV2); err != nil {
		return f, tail, err
	}
	if err := w.add(frameOrigin, []byte(j.origin)); err != nil {
		return f, tail, err
	}
	if err := fill(w); err != nil {
		return f, tail, err
	}
	if err := errors.Join(w.out.Flush(), f.Sync()); err != nil {
		return f, tail, err
	}
	return f, w.tail, os.Rename(tmp, j.path)
}

// syncDir makes the rename outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

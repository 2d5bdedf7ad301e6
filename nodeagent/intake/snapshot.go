// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// The file is the magic line, batches as the relay sends them (length-delimited), and the SHA-256 of both. The number in
// the magic is the format's: an agent that doesn't know it waits for the relay instead of guessing.
const (
	magic          = "fairlead snapshot 1\n"
	recordsInBatch = 500
	maxBatchSize   = 256 << 20
)

// What can be wrong with a snapshot.
var (
	errForeign = errors.New("not a snapshot of this version")
	errDamaged = errors.New("the checksum is wrong: the file is damaged or was cut off")
)

// writeSnapshot replaces the file as a whole: whoever loses power on the way has the old one.
func writeSnapshot(path string, s snapshot) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("saving the snapshot: %w", err)
	}
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("saving the snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("saving the snapshot: %w", errors.Join(err, f.Close(), os.Remove(tmp)))
		}
	}()
	buffered := bufio.NewWriter(f)
	sum := sha256.New()
	if err := encode(io.MultiWriter(buffered, sum), s); err != nil {
		return err
	}
	if _, err := buffered.Write(sum.Sum(nil)); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("saving the snapshot: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the rename outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("saving the snapshot: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

func encode(w io.Writer, s snapshot) error {
	if _, err := io.WriteString(w, magic); err != nil {
		return err
	}
	batch := &relayv1.Batch{At: s.at, Clusters: s.clusters, SnapshotStart: true}
	for key, rec := range s.records {
		batch.Changes = append(batch.Changes, &relayv1.Change{Key: key, Record: rec})
		if len(batch.Changes) < recordsInBatch {
			continue
		}
		if _, err := protodelim.MarshalTo(w, batch); err != nil {
			return err
		}
		batch = &relayv1.Batch{}
	}
	batch.SnapshotEnd = true
	_, err := protodelim.MarshalTo(w, batch)
	return err
}

func readSnapshot(path string) (snapshot, error) {
	f, err := os.Open(path)
	if err != nil {
		return snapshot{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return snapshot{}, err
	}
	size := info.Size() - sha256.Size
	if size < int64(len(magic)) {
		return snapshot{}, errDamaged
	}
	if err := verify(f, size, sha256.New()); err != nil {
		return snapshot{}, err
	}
	if _, err := f.Seek(int64(len(magic)), io.SeekStart); err != nil {
		return snapshot{}, err
	}
	return decode(bufio.NewReader(io.LimitReader(f, size-int64(len(magic)))))
}

func verify(f io.Reader, size int64, sum hash.Hash) error {
	in := bufio.NewReader(f)
	head, err := in.Peek(len(magic))
	if err != nil {
		return err
	}
	if string(head) != magic {
		return errForeign
	}
	if _, err := io.CopyN(sum, in, size); err != nil {
		return err
	}
	want, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return errDamaged
	}
	return nil
}

func decode(in *bufio.Reader) (snapshot, error) {
	s := snapshot{records: map[string]*recordv1.Record{}}
	for {
		batch := &relayv1.Batch{}
		err := (protodelim.UnmarshalOptions{MaxSize: maxBatchSize}).UnmarshalFrom(in, batch)
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return snapshot{}, fmt.Errorf("%w: %w", errDamaged, err)
		}
		if batch.GetSnapshotStart() {
			s.at, s.clusters = batch.GetAt(), batch.GetClusters()
		}
		for _, c := range batch.GetChanges() {
			if err := checkKey(c); err != nil {
				return snapshot{}, err
			}
			s.records[c.GetKey()] = c.GetRecord()
		}
	}
}

// checkKey: a record lies under the key that its payload says, on disk as anywhere.
func checkKey(c *relayv1.Change) error {
	key, err := record.Key(c.GetRecord())
	if err != nil {
		return fmt.Errorf("%w: record %s: %w", errDamaged, c.GetKey(), err)
	}
	if key != c.GetKey() {
		return fmt.Errorf("%w: record %s is filed as %s", errDamaged, key, c.GetKey())
	}
	return nil
}

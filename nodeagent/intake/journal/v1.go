// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protodelim"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

const maxBatchSize = 256 << 20

// readV1 reads the format that agents wrote before the journal: the magic line, length-delimited relayv1.Batches, and the
// SHA-256 of both, which is checked before anything is given.
func readV1(f io.ReadSeeker, each func(*relayv1.Change) error) ([]*relayv1.ClusterState, error) {
	end, err := f.Seek(-sha256.Size, io.SeekEnd)
	if err != nil || end < int64(len(magicV1)) {
		return nil, ErrDamaged
	}
	if err := verifyV1(f, end); err != nil {
		return nil, err
	}
	if _, err := f.Seek(int64(len(magicV1)), io.SeekStart); err != nil {
		return nil, err
	}
	return decodeV1(bufio.NewReaderSize(io.LimitReader(f, end-int64(len(magicV1))), readAhead), each)
}

func verifyV1(f io.ReadSeeker, end int64) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, end); err != nil {
		return err
	}
	want, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return ErrDamaged
	}
	return nil
}

func decodeV1(in *bufio.Reader, each func(*relayv1.Change) error) ([]*relayv1.ClusterState, error) {
	var clusters []*relayv1.ClusterState
	for {
		batch := &relayv1.Batch{}
		err := (protodelim.UnmarshalOptions{MaxSize: maxBatchSize}).UnmarshalFrom(in, batch)
		if errors.Is(err, io.EOF) {
			return clusters, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if batch.GetSnapshotStart() {
			clusters = batch.GetClusters()
		}
		for _, c := range batch.GetChanges() {
			if err := each(c); err != nil {
				return nil, err
			}
		}
	}
}

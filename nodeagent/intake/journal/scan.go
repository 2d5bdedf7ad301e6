// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// The magic lines of the formats.
const (
	magicV1 = "fairlead snapshot 1\n"
	magicV2 = "fairlead snapshot 2\n"
)

const readAhead = 256 << 10

// What can be wrong with a file.
var (
	ErrForeign = errors.New("not a snapshot of a known version")
	ErrDamaged = errors.New("the file is damaged or was cut off, and nothing whole is left of it")
)

// Mark is what is known of the stream where a state is whole.
type Mark struct {
	At       *relayv1.ResumePoint // where a new stream may go on; nil: it must send everything
	Clusters []*relayv1.ClusterState
}

// position is a place between two frames.
type position struct {
	offset int64
	chain  chain
}

// scanned is what a file holds up to its last mark.
type scanned struct {
	end     position
	origin  string // of the last mark
	mark    Mark
	changes int   // frames
	size    int64 // of these frames
}

// scan reads a file of version 2 from its first frame on. It fails if there is no mark, or if reading itself fails.
func scan(r io.Reader) (scanned, error) {
	var whole, now scanned
	now.end.offset = int64(len(magicV2))
	in := bufio.NewReaderSize(r, readAhead)
	var buf []byte
	marked := false
	for {
		kind, payload, err := now.end.chain.next(in, buf)
		buf = payload
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, errTorn):
			if !marked {
				return scanned{}, ErrDamaged
			}
			return whole, nil
		case err != nil:
			return scanned{}, err
		}
		now.end.offset += headSize + int64(len(payload))
		switch kind {
		case frameOrigin:
			now.origin = string(payload)
		case frameChange:
			now.changes++
			now.size += headSize + int64(len(payload))
		case frameMark:
			m, err := parseMark(payload)
			if err != nil {
				return scanned{}, err
			}
			now.mark.At = m.At
			if len(m.Clusters) > 0 {
				now.mark.Clusters = m.Clusters
			}
			whole, marked = now, true
		}
	}
}

// replay gives the changes up to the end that scan found. The change may be kept.
func replay(r io.Reader, to scanned, each func(*relayv1.Change) error) error {
	return frames(r, to.end.offset, func(kind frameKind, payload []byte) error {
		if kind != frameChange {
			return nil
		}
		c := &relayv1.Change{}
		if err := proto.Unmarshal(payload, c); err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return each(c)
	})
}

// frames visits the frames up to an offset, from the first on. The payload is valid during the call.
func frames(r io.Reader, to int64, visit func(frameKind, []byte) error) error {
	in := bufio.NewReaderSize(r, readAhead)
	var c chain
	var buf []byte
	for at := int64(len(magicV2)); at < to; {
		kind, payload, err := c.next(in, buf)
		if err != nil {
			return fmt.Errorf("at byte %d: %w", at, err)
		}
		buf = payload
		at += headSize + int64(len(payload))
		if err := visit(kind, payload); err != nil {
			return err
		}
	}
	return nil
}

func encodeMark(m Mark) ([]byte, error) {
	return proto.Marshal(&relayv1.Batch{At: m.At, Clusters: m.Clusters})
}

func parseMark(payload []byte) (Mark, error) {
	b := &relayv1.Batch{}
	if err := proto.Unmarshal(payload, b); err != nil {
		return Mark{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return Mark{At: b.GetAt(), Clusters: b.GetClusters()}, nil
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package record names, encodes and validates what clusters publish and what operators stream to their agents.
//
// Data flows through it twice. On the way out a payload becomes a Record, gets its key from the payload itself (Key) and
// is encoded the same way every time (Marshal), so that equal records have equal bytes and a publisher can compare bytes
// (Set, Diff). On the way in nothing is trusted: Unmarshal bounds the size, Parse reads the payload into an Object of typed
// values, and Validate holds that against what the reading cluster allows the writing cluster to claim. Each kind of record
// has a file: its type, its key, how it is parsed and what is checked. The package is pure.
package record

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// MaxSize bounds one encoded record. It keeps a hostile or broken writer from filling the memory of every node.
const MaxSize = 256 << 10

// Marshal encodes a record. Equal records give equal bytes.
func Marshal(rec *recordv1.Record) ([]byte, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode record of cluster %q: %w", rec.GetCluster(), err)
	}
	if len(data) > MaxSize {
		return nil, reject(ReasonTooLarge, "", "record has %d bytes, more than %d", len(data), MaxSize)
	}
	return data, nil
}

// Unmarshal decodes a record. Fields that this version doesn't know are dropped and not passed on: nobody here could
// have validated them.
func Unmarshal(data []byte) (*recordv1.Record, error) {
	if len(data) > MaxSize {
		return nil, reject(ReasonTooLarge, "", "record has %d bytes, more than %d", len(data), MaxSize)
	}
	rec := &recordv1.Record{}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, rec); err != nil {
		return nil, reject(ReasonMalformed, "", "not a record: %v", err)
	}
	return rec, nil
}

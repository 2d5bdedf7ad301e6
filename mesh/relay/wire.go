// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that wireCodec falls back to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// Bounds of one batch: well below gRPC's message limit even if every record has the largest size.
const (
	maxBatchChanges = 1000
	maxBatchBytes   = 1 << 20
)

const batchChangesField protowire.Number = 4

// encodeChange gives the bytes that this change adds to a Batch. Concatenating such bytes is concatenating the repeated
// field, so a change is encoded once however many agents it goes to.
func encodeChange(c *relayv1.Change) ([]byte, error) {
	options := proto.MarshalOptions{Deterministic: true}
	size := options.Size(c)
	out := make([]byte, 0, protowire.SizeTag(batchChangesField)+protowire.SizeBytes(size))
	out = protowire.AppendTag(out, batchChangesField, protowire.BytesType)
	out = protowire.AppendVarint(out, uint64(size))
	options.UseCachedSize = true
	return options.MarshalAppend(out, c)
}

// wireBatch is a Batch with changes that are encoded already. Only wireCodec can send it.
type wireBatch struct {
	head    *relayv1.Batch // without changes
	entries []*entry
}

// wireCodec is gRPC's protobuf codec, which also sends wireBatch without copying what is encoded already.
type wireCodec struct{ proto encoding.CodecV2 }

func newWireCodec() wireCodec { return wireCodec{proto: encoding.GetCodecV2("proto")} }

func (c wireCodec) Name() string { return c.proto.Name() }

func (c wireCodec) Unmarshal(data mem.BufferSlice, v any) error { return c.proto.Unmarshal(data, v) }

func (c wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*wireBatch)
	if !ok {
		return c.proto.Marshal(v)
	}
	head, err := proto.Marshal(b.head)
	if err != nil {
		return nil, fmt.Errorf("encode the head of a batch: %w", err)
	}
	out := make(mem.BufferSlice, 0, len(b.entries)+1)
	out = append(out, mem.SliceBuffer(head))
	for _, e := range b.entries {
		out = append(out, mem.SliceBuffer(e.encoded))
	}
	return out, nil
}

// empty says whether a batch would change nothing.
func (b *wireBatch) empty() bool {
	return len(b.entries) == 0 && !b.head.GetSnapshotStart() && !b.head.GetSnapshotEnd() && len(b.head.GetClusters()) == 0
}

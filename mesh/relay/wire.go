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
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(body)+8)
	out = protowire.AppendTag(out, batchChangesField, protowire.BytesType)
	return protowire.AppendBytes(out, body), nil
}

// wireBatch is a Batch whose changes are encoded already. Only wireCodec can send it.
type wireBatch struct {
	head    *relayv1.Batch // without changes
	entries []*entry
}

// batches cuts a view into batches. Only the last of a snapshot has a resume point: one in the middle would let an agent
// resume without the rest. A delta's batches each have one, because entries come by revision.
func (h *Hub) batches(v view, keep func(key string) bool) []wireBatch {
	var out []wireBatch
	rest := v.entries
	for {
		n := cut(rest)
		part := rest[:n]
		rest = rest[n:]
		last := len(rest) == 0
		b := wireBatch{head: &relayv1.Batch{}, entries: filter(part, keep)}
		switch {
		case last:
			b.head.At = h.point(v.next.revision)
			b.head.SnapshotEnd = v.snapshot
			if v.news {
				b.head.Clusters = v.clusters
			}
		case !v.snapshot:
			b.head.At = h.point(part[n-1].revision)
		}
		b.head.SnapshotStart = v.snapshot && len(out) == 0
		out = append(out, b)
		if last {
			return out
		}
	}
}

// cut says how many of the entries fit into one batch.
func cut(entries []*entry) int {
	size := 0
	for i, e := range entries {
		size += len(e.encoded)
		if i == maxBatchChanges || i > 0 && size > maxBatchBytes {
			return i
		}
	}
	return len(entries)
}

func filter(entries []*entry, keep func(key string) bool) []*entry {
	if keep == nil {
		return entries
	}
	var out []*entry
	for _, e := range entries {
		if keep(e.key) {
			out = append(out, e)
		}
	}
	return out
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

func (b *wireBatch) empty() bool {
	return len(b.entries) == 0 && !b.head.GetSnapshotStart() && !b.head.GetSnapshotEnd() && len(b.head.GetClusters()) == 0
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Map is one kernel map whose rows are the generated structs themselves.
type Map[K, V comparable] struct{ m *ebpf.Map }

// Update writes a row.
func (d Map[K, V]) Update(_ context.Context, key K, value V) error {
	return d.m.Update(&key, &value, ebpf.UpdateAny)
}

// Delete removes a row.
func (d Map[K, V]) Delete(_ context.Context, key K) error {
	if err := d.m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// Have reads all rows.
func (d Map[K, V]) Have(context.Context) (map[K]V, error) {
	out := map[K]V{}
	var key K
	var value V
	it := d.m.Iterate()
	for it.Next(&key, &value) {
		out[key] = value
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("reading map %s: %w", d.m, err)
	}
	return out, nil
}

// byFamily joins the map for IPv4 and the one for IPv6 into one with a common key.
type byFamily[K, K4, K6, V comparable] struct {
	four Map[K4, V]
	six  Map[K6, V]
	is4  func(K) bool
	to4  func(K) K4
	to6  func(K) K6
	of4  func(K4) K
	of6  func(K6) K
}

func (d byFamily[K, K4, K6, V]) Update(ctx context.Context, key K, value V) error {
	if d.is4(key) {
		return d.four.Update(ctx, d.to4(key), value)
	}
	return d.six.Update(ctx, d.to6(key), value)
}

func (d byFamily[K, K4, K6, V]) Delete(ctx context.Context, key K) error {
	if d.is4(key) {
		return d.four.Delete(ctx, d.to4(key))
	}
	return d.six.Delete(ctx, d.to6(key))
}

func (d byFamily[K, K4, K6, V]) Have(ctx context.Context) (map[K]V, error) {
	four, err := d.four.Have(ctx)
	if err != nil {
		return nil, err
	}
	six, err := d.six.Have(ctx)
	if err != nil {
		return nil, err
	}
	out := make(map[K]V, len(four)+len(six))
	for k, v := range four {
		out[d.of4(k)] = v
	}
	for k, v := range six {
		out[d.of6(k)] = v
	}
	return out, nil
}

func byAddress[V comparable](four, six *ebpf.Map) byFamily[netip.Addr, bpf.Addr4, bpf.Addr6, V] {
	return byFamily[netip.Addr, bpf.Addr4, bpf.Addr6, V]{
		four: Map[bpf.Addr4, V]{four},
		six:  Map[bpf.Addr6, V]{six},
		is4:  netip.Addr.Is4,
		to4:  func(a netip.Addr) bpf.Addr4 { return bpf.Addr4{Addr: a.As4()} },
		to6:  func(a netip.Addr) bpf.Addr6 { return bpf.Addr6{Addr: a.As16()} },
		of4:  func(k bpf.Addr4) netip.Addr { return netip.AddrFrom4(k.Addr) },
		of6:  func(k bpf.Addr6) netip.Addr { return netip.AddrFrom16(k.Addr) },
	}
}

func byPrefix(four, six *ebpf.Map) byFamily[netip.Prefix, bpf.CIDR4, bpf.CIDR6, bpf.Remote] {
	return byFamily[netip.Prefix, bpf.CIDR4, bpf.CIDR6, bpf.Remote]{
		four: Map[bpf.CIDR4, bpf.Remote]{four},
		six:  Map[bpf.CIDR6, bpf.Remote]{six},
		is4:  func(p netip.Prefix) bool { return p.Addr().Is4() },
		to4: func(p netip.Prefix) bpf.CIDR4 {
			return bpf.CIDR4{Prefixlen: uint32(p.Bits()), Addr: p.Masked().Addr().As4()}
		},
		to6: func(p netip.Prefix) bpf.CIDR6 {
			return bpf.CIDR6{Prefixlen: uint32(p.Bits()), Addr: p.Masked().Addr().As16()}
		},
		of4: func(k bpf.CIDR4) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4(k.Addr), int(k.Prefixlen)) },
		of6: func(k bpf.CIDR6) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom16(k.Addr), int(k.Prefixlen)) },
	}
}

func byFrontend(four, six *ebpf.Map) byFamily[table.Frontend, bpf.Service4Key, bpf.Service6Key, bpf.Service] {
	return byFamily[table.Frontend, bpf.Service4Key, bpf.Service6Key, bpf.Service]{
		four: Map[bpf.Service4Key, bpf.Service]{four},
		six:  Map[bpf.Service6Key, bpf.Service]{six},
		is4:  func(f table.Frontend) bool { return f.Addr.Is4() },
		to4: func(f table.Frontend) bpf.Service4Key {
			return bpf.Service4Key{Addr: f.Addr.As4(), Port: f.Port, Proto: f.Proto}
		},
		to6: func(f table.Frontend) bpf.Service6Key {
			return bpf.Service6Key{Addr: f.Addr.As16(), Port: f.Port, Proto: f.Proto}
		},
		of4: func(k bpf.Service4Key) table.Frontend {
			return table.Frontend{Addr: netip.AddrFrom4(k.Addr), Port: k.Port, Proto: k.Proto}
		},
		of6: func(k bpf.Service6Key) table.Frontend {
			return table.Frontend{Addr: netip.AddrFrom16(k.Addr), Port: k.Port, Proto: k.Proto}
		},
	}
}

// peers is fl_peers, an array: an absent peer is a zero.
type peers struct{ m *ebpf.Map }

func (d peers) Update(_ context.Context, index uint16, peer bpf.Peer) error {
	return d.m.Put(uint32(index), &peer)
}

func (d peers) Delete(_ context.Context, index uint16) error {
	return d.m.Put(uint32(index), &bpf.Peer{})
}

func (d peers) Have(context.Context) (map[uint16]bpf.Peer, error) {
	out := map[uint16]bpf.Peer{}
	keys := make([]uint32, 4096)
	values := make([]bpf.Peer, len(keys))
	var cursor ebpf.MapBatchCursor
	for {
		n, err := d.m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			if values[i] != (bpf.Peer{}) {
				out[uint16(keys[i])] = values[i]
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading map %s: %w", d.m, err)
		}
	}
}

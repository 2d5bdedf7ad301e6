// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

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

// split sorts rows by family. at says where each row stood.
type split[K4, K6, V any] struct {
	keys4     []K4
	keys6     []K6
	values4   []V
	values6   []V
	at4, at6  []int
	populated int
}

func (d byFamily[K, K4, K6, V]) split(keys []K, values []V) (s split[K4, K6, V]) {
	for i, key := range keys {
		if d.is4(key) {
			s.keys4, s.at4 = append(s.keys4, d.to4(key)), append(s.at4, i)
			if values != nil {
				s.values4 = append(s.values4, values[i])
			}
			continue
		}
		s.keys6, s.at6 = append(s.keys6, d.to6(key)), append(s.at6, i)
		if values != nil {
			s.values6 = append(s.values6, values[i])
		}
	}
	s.populated = len(keys)
	return s
}

// join puts errors back in the order of the rows.
func (s split[K4, K6, V]) join(errs4, errs6 []error) []error {
	if errs4 == nil && errs6 == nil {
		return nil
	}
	out := make([]error, s.populated)
	for i, err := range errs4 {
		out[s.at4[i]] = err
	}
	for i, err := range errs6 {
		out[s.at6[i]] = err
	}
	return out
}

func (d byFamily[K, K4, K6, V]) Update(ctx context.Context, keys []K, values []V) []error {
	s := d.split(keys, values)
	return s.join(d.four.Update(ctx, s.keys4, s.values4), d.six.Update(ctx, s.keys6, s.values6))
}

func (d byFamily[K, K4, K6, V]) Delete(ctx context.Context, keys []K) []error {
	s := d.split(keys, nil)
	return s.join(d.four.Delete(ctx, s.keys4), d.six.Delete(ctx, s.keys6))
}

func (d byFamily[K, K4, K6, V]) Have(ctx context.Context, visit func([]K, []V)) error {
	if err := d.four.Have(ctx, converted(d.of4, visit)); err != nil {
		return err
	}
	return d.six.Have(ctx, converted(d.of6, visit))
}

func converted[In, K, V any](of func(In) K, visit func([]K, []V)) func([]In, []V) {
	var keys []K
	return func(in []In, values []V) {
		keys = keys[:0]
		for _, key := range in {
			keys = append(keys, of(key))
		}
		visit(keys, values)
	}
}

func byAddress[V comparable](name4, name6 string, four, six *ebpf.Map) byFamily[netip.Addr, bpf.Addr4, bpf.Addr6, V] {
	return byFamily[netip.Addr, bpf.Addr4, bpf.Addr6, V]{
		four: Map[bpf.Addr4, V]{name4, four},
		six:  Map[bpf.Addr6, V]{name6, six},
		is4:  netip.Addr.Is4,
		to4:  func(a netip.Addr) bpf.Addr4 { return bpf.Addr4{Addr: a.As4()} },
		to6:  func(a netip.Addr) bpf.Addr6 { return bpf.Addr6{Addr: a.As16()} },
		of4:  func(k bpf.Addr4) netip.Addr { return netip.AddrFrom4(k.Addr) },
		of6:  func(k bpf.Addr6) netip.Addr { return netip.AddrFrom16(k.Addr) },
	}
}

func byPrefix[V comparable](name4, name6 string, four, six *ebpf.Map) byFamily[netip.Prefix, bpf.CIDR4, bpf.CIDR6, V] {
	return byFamily[netip.Prefix, bpf.CIDR4, bpf.CIDR6, V]{
		four: Map[bpf.CIDR4, V]{name4, four},
		six:  Map[bpf.CIDR6, V]{name6, six},
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
		four: Map[bpf.Service4Key, bpf.Service]{bpf.MapServices4, four},
		six:  Map[bpf.Service6Key, bpf.Service]{bpf.MapServices6, six},
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

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// LocatedEndpoint is an endpoint and the cluster that it is in.
type LocatedEndpoint struct {
	Cluster string
	*record.Endpoint
}

// EndpointsAt gives the endpoints with an address, in the order of their keys. There are several for a moment when a pod
// ends and another gets its address. The first call indexes all endpoints; from then on the index follows them.
func (r *RecordTables) EndpointsAt(addr netip.Addr) []LocatedEndpoint {
	r.mu.RLock()
	if r.addresses == nil {
		r.mu.RUnlock()
		r.indexAddresses()
		r.mu.RLock()
	}
	defer r.mu.RUnlock()
	var out []LocatedEndpoint
	keys := r.addresses.keys(addr)
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if e := r.Endpoints.rows[key]; e != nil && slices.Contains(e.Addresses, addr) {
			out = append(out, LocatedEndpoint{record.ClusterOf(key), e})
		}
	}
	return out
}

func (r *RecordTables) indexAddresses() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addresses != nil {
		return
	}
	r.addresses = newAddressIndex(len(r.Endpoints.rows))
	for key, e := range r.Endpoints.rows {
		r.endpointChanged(key, nil, e)
	}
}

func (r *RecordTables) endpointChanged(key string, before, now *record.Endpoint) {
	if r.addresses == nil {
		return
	}
	if before != nil {
		for _, a := range before.Addresses {
			r.addresses.remove(a, key)
		}
	}
	if now != nil {
		for _, a := range now.Addresses {
			r.addresses.add(a, key)
		}
	}
}

// addressIndex finds keys by address. It knows addresses by a 32-bit hash, which makes it half as large; whoever asks
// looks whether the record really has the address.
type addressIndex struct {
	seed  maphash.Seed
	first map[uint32]string
	more  map[uint32][]string // of addresses, or hashes, that several records share
}

func newAddressIndex(size int) *addressIndex {
	return &addressIndex{seed: maphash.MakeSeed(), first: make(map[uint32]string, size), more: map[uint32][]string{}}
}

func (x *addressIndex) hash(a netip.Addr) uint32 { return uint32(maphash.Comparable(x.seed, a)) }

func (x *addressIndex) add(a netip.Addr, key string) {
	h := x.hash(a)
	if _, taken := x.first[h]; taken {
		x.more[h] = append(x.more[h], key)
		return
	}
	x.first[h] = key
}

func (x *addressIndex) remove(a netip.Addr, key string) {
	h := x.hash(a)
	more := x.more[h]
	if x.first[h] == key {
		if len(more) == 0 {
			delete(x.first, h)
			return
		}
		x.first[h], more = more[0], more[1:]
	} else if at := slices.Index(more, key); at >= 0 {
		more = slices.Delete(more, at, at+1)
	}
	if len(more) == 0 {
		delete(x.more, h)
		return
	}
	x.more[h] = more
}

func (x *addressIndex) keys(a netip.Addr) []string {
	h := x.hash(a)
	first, ok := x.first[h]
	if !ok {
		return nil
	}
	return append([]string{first}, x.more[h]...)
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who has an address, how it is reached, and which CIDR of policies it is in. */
#ifndef FAIRLEAD_IPCACHE_H
#define FAIRLEAD_IPCACHE_H

#include "fairlead/maps.h"
#include "packet.h"

static __always_inline struct remote *remote_exact(__u8 family, const __u8 *addr)
{
	struct addr6 k; /* its first four bytes are an addr4 */

	if (family == AF_INET) {
		__builtin_memcpy(k.addr, addr, 4);
		return bpf_map_lookup_elem(&fl_ipcache4, &k);
	}
	__builtin_memcpy(k.addr, addr, 16);
	return bpf_map_lookup_elem(&fl_ipcache6, &k);
}

static __always_inline struct remote *remote_range(__u8 family, const __u8 *addr)
{
	if (family == AF_INET) {
		struct cidr4 k = { .prefixlen = 32 };

		__builtin_memcpy(k.addr, addr, 4);
		return bpf_map_lookup_elem(&fl_cidr4, &k);
	}
	struct cidr6 k = { .prefixlen = 128 };

	__builtin_memcpy(k.addr, addr, 16);
	return bpf_map_lookup_elem(&fl_cidr6, &k);
}

/* An address of this cluster's nodes. Those of others are behind the tunnel. */
static __always_inline bool node_of_ours(const struct remote *r)
{
	return (r->flags & (FL_REMOTE_HOST | FL_REMOTE_NODE)) && !(r->flags & FL_REMOTE_REQUIRE_TUNNEL);
}

/* The identity of the narrowest CIDR that policies name around an address; 0 if
 * there is none. The trie costs ten times a hash when it is large. */
static __always_inline __u32 block_find(__u8 family, const __u8 *addr)
{
	__u32 *block;

	if (family == AF_INET) {
		struct cidr4 k = { .prefixlen = 32 };

		__builtin_memcpy(k.addr, addr, 4);
		block = bpf_map_lookup_elem(&fl_blocks4, &k);
	} else {
		struct cidr6 k = { .prefixlen = 128 };

		__builtin_memcpy(k.addr, addr, 16);
		block = bpf_map_lookup_elem(&fl_blocks6, &k);
	}
	return block ? *block : 0;
}

/* An address without any entry is the world; one inside a range whose identity
 * is 0 (a cluster's pods) but without an entry of its own is unknown, and the
 * caller fails closed. */
static __always_inline void remote_lookup(__u8 family, const __u8 *addr, struct remote *out)
{
	struct remote *r = remote_exact(family, addr);

	if (!r)
		r = remote_range(family, addr);
	if (r) {
		*out = *r;
		return;
	}
	*out = (struct remote){ .identity = FL_IDENTITY_WORLD };
}

#endif

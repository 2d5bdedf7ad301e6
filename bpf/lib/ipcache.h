/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Whose address is this, and how is it reached? */
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

/* Exact address first: the trie costs ten times a hash when it is large, so
 * only flows that are new and not of the mesh pay for it. An address without
 * any entry is the world; one inside a range whose identity is 0 (a
 * cluster's pods) but without an entry of its own is unknown, and the caller
 * fails closed. */
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

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Which addresses must not be seen in the clear on an uplink. */
#ifndef FAIRLEAD_GUARD_H
#define FAIRLEAD_GUARD_H

#include "ipcache.h"

static __always_inline bool guarded(__u8 family, const __u8 *addr)
{
	if (family == AF_INET) {
		struct cidr4 k = { .prefixlen = 32 };

		__builtin_memcpy(k.addr, addr, 4);
		return bpf_map_lookup_elem(&fl_guard4, &k);
	}
	struct cidr6 k = { .prefixlen = 128 };

	__builtin_memcpy(k.addr, addr, 16);
	return bpf_map_lookup_elem(&fl_guard6, &k);
}

/* Nodes talk to nodes more than to anybody, and their addresses are known
 * exactly: one hash instead of a trie. Of the other exact entries none is
 * believed here: that one is somebody's pod says nothing about its range. */
static __always_inline bool must_be_encrypted(__u8 family, const __u8 *addr)
{
	struct remote *r = remote_exact(family, addr);

	if (r && (r->flags & (FL_REMOTE_HOST | FL_REMOTE_NODE)))
		return false;
	return guarded(family, addr);
}

#endif

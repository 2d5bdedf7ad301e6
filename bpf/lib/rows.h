/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Arrays whose rows a hash indexes. A key may be in two of them, neighbours, so
 * that keys seldom push each other out. */
#ifndef FAIRLEAD_ROWS_H
#define FAIRLEAD_ROWS_H

#include "fairlead/types.h"

/* Whoever knows the hash can make keys share a row, and wins little: what is
 * lost is a shortcut, or the folding of some events, which the budget bounds. */
static __always_inline __u64 rows_hash(__u64 a, __u64 b, __u64 c)
{
	__u64 h = a * 0x9e3779b97f4a7c15ULL ^ b * 0xc2b2ae3d27d4eb4fULL ^ c * 0x165667b19e3779f9ULL;

	return h ^ h >> 29;
}

static __always_inline __u32 rows_index(__u64 hash, __u32 rows)
{
	return hash >> 40 & (rows - 1);
}

/* Which of two rows a new key takes: the one that has been quiet for longer. */
static __always_inline bool rows_older(__u32 tick, __u32 than)
{
	return (__s32)(tick - than) < 0;
}

#endif

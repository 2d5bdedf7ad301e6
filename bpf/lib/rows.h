/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Arrays of FL_CACHE_ROWS rows that a hash indexes. */
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

static __always_inline __u32 rows_index(__u64 hash)
{
	return hash >> 40 & (FL_CACHE_ROWS - 1);
}

#endif

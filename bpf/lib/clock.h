/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
#ifndef FAIRLEAD_CLOCK_H
#define FAIRLEAD_CLOCK_H

#include "fairlead/types.h"
#include <bpf/bpf_helpers.h>

/* A tick is 2^30 ns: a shift instead of a 64-bit division per packet. The
 * coarse clock is a memory read; the precise one costs 37 ns. */
#define FL_TICK_SHIFT 30
#define FL_TICKS(seconds) ((__u32)(((__u64)(seconds) * 1000000000ULL) >> FL_TICK_SHIFT))

static __always_inline __u32 now_ticks(void)
{
	return bpf_ktime_get_coarse_ns() >> FL_TICK_SHIFT;
}

#endif

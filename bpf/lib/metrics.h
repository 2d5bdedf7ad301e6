/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Counters: every packet by reason, every judged flow by rule. */
#ifndef FAIRLEAD_METRICS_H
#define FAIRLEAD_METRICS_H

#include "fairlead/maps.h"

static __always_inline void count(enum hook hook, enum reason reason, __u32 bytes)
{
	__u32 index = reason * FL_HOOK_COUNT + hook;
	struct counter *c = bpf_map_lookup_elem(&fl_metrics, &index);

	if (!c)
		return;
	c->packets++;
	c->bytes += bytes;
}

/* Only for new flows and denied packets: established ones don't ask a rule. */
static __always_inline void count_rule(__u32 rule_id, enum direction dir, enum verdict verdict,
				       __u32 bytes)
{
	struct rule_key k = { .rule_id = rule_id, .dir = dir, .verdict = verdict };
	struct counter *c = bpf_map_lookup_elem(&fl_rule_stats, &k);

	if (c) {
		c->packets++;
		c->bytes += bytes;
		return;
	}
	struct counter first = { .packets = 1, .bytes = bytes };

	bpf_map_update_elem(&fl_rule_stats, &k, &first, BPF_NOEXIST);
}

#endif

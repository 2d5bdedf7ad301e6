/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* How the tc hooks begin and end. */
#ifndef FAIRLEAD_HOOK_H
#define FAIRLEAD_HOOK_H

#include "fairlead/maps.h"
#include "metrics.h"

static __always_inline const struct config *config_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&fl_config, &zero);
}

/* Counts the packet's fate and returns the tc action: dropped, or left to the
 * programs after us and to the CNI's own path. TC_ACT_UNSPEC means that both
 * under TCX and under clsact direct action. */
static __always_inline int leave(struct __sk_buff *skb, enum hook hook, enum reason reason)
{
	count(hook, reason, skb->len);
	return reason > FL_REASON_FIRST_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

#endif

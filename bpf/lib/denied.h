/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A denied packet should be the cheapest of all: whoever floods a pod with what
 * policy forbids must not buy more of the CPU than its owner pays for traffic.
 * So a denial is remembered until the clock ticks, and looked up before policy.
 *
 * Not in the flow table: attempts would push out real flows. Only what a policy
 * denied is remembered: an unknown address may become known at any moment, and
 * a policy that is missing may be written. */
#ifndef FAIRLEAD_DENIED_H
#define FAIRLEAD_DENIED_H

#include "fairlead/maps.h"
#include "packet.h"

static __always_inline struct denied *denied_find(const struct denied_key *k)
{
	return bpf_map_lookup_elem(&fl_denied, k);
}

static __always_inline void denied_key_of(const struct packet *p, __u32 subject, enum direction dir,
					  struct denied_key *k)
{
	__builtin_memcpy(k->peer, dir == FL_DIR_EGRESS ? p->daddr : p->saddr, 16);
	k->subject = subject;
	k->port = p->dport;
	k->proto = p->proto;
	k->dir = dir;
}

static __always_inline bool denied_still(const struct denied *d, const struct packet *p, __u32 now,
					 __u32 epoch, __u32 address_epoch)
{
	/* ::a00:1 and 10.0.0.1 look the same in sixteen bytes. */
	return d->tick == now && d->epoch == epoch && d->address_epoch == address_epoch &&
	       d->family == p->family;
}

#endif

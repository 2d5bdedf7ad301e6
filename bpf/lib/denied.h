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

#include "context.h"
#include "fairlead/maps.h"
#include "rows.h"

/* The key in words, for the verifier's sake aligned. */
union denied_words {
	struct denied_key key;
	__u64 word[3];
};

struct denied_slot {
	union denied_words k;
	__u64 hash;
	struct denied *row; /* NULL: the map is smaller than it should be */
};

_Static_assert(sizeof(struct denied) == 64, "a cache line");
_Static_assert(sizeof(struct denied_key) == sizeof(union denied_words), "all of it is compared");

static __always_inline bool denied_same_key(const struct denied_slot *s, const struct denied *row)
{
	const __u64 *word = (const __u64 *)row;

	return word[0] == s->k.word[0] && word[1] == s->k.word[1] && word[2] == s->k.word[2];
}

static __always_inline void denied_find(const struct pod_ctx *c, struct denied_slot *s)
{
	struct denied *two;
	__u32 index;

	__builtin_memcpy(s->k.key.peer, ctx_peer_addr(c), 16);
	s->k.key.subject = c->subject;
	s->k.key.port = c->p.dport;
	s->k.key.proto = c->p.proto;
	s->k.key.dir = c->dir;
	s->hash = rows_hash(s->k.word[0], s->k.word[1], s->k.word[2]);
	index = rows_index(s->hash, FL_DENIED_ROWS);
	s->row = bpf_map_lookup_elem(&fl_denied, &index);
	if (!s->row || denied_same_key(s, s->row))
		return;
	index ^= 1;
	two = bpf_map_lookup_elem(&fl_denied, &index);
	if (two && (denied_same_key(s, two) || rows_older(two->tick, s->row->tick)))
		s->row = two;
}

static __always_inline __u32 denied_sum(const struct denied *d, __u64 hash)
{
	return (__u32)hash + d->tick * 3 + d->epoch * 5 + d->address_epoch * 7 + d->identity * 11 +
	       d->rule_id * 13 + d->reason * 17 + d->family * 19;
}

/* Was this very thing denied in this tick? */
static __always_inline enum reason denied_before(struct pod_ctx *c, const struct denied_slot *s)
{
	struct denied *d = s->row;

	/* ::a00:1 and 10.0.0.1 look the same in sixteen bytes. */
	if (!d || !denied_same_key(s, d) || d->tick != c->now || d->epoch != c->epoch ||
	    d->address_epoch != c->address_epoch || d->family != c->p.family ||
	    d->sum != denied_sum(d, s->hash))
		return FL_REASON_NONE;
	d->folded++;
	c->folded = true;
	note(c, d->identity, d->rule_id, c->dir, FL_VERDICT_DENY, FL_EVENT_NEW);
	return d->reason;
}

/* Remembers a denial until the next tick. */
static __always_inline void denied_remember(struct pod_ctx *c, const struct denied_slot *s, __u32 identity,
					    __u32 rule_id, enum reason reason)
{
	struct denied d = {
		.key = s->k.key,
		.tick = c->now,
		.epoch = c->epoch,
		.address_epoch = c->address_epoch,
		.identity = identity,
		.rule_id = rule_id,
		.reason = reason,
		.family = c->p.family,
	};

	if (!s->row || (reason != FL_REASON_POLICY_DENIED && reason != FL_REASON_DEFAULT_DENIED))
		return;
	if (denied_same_key(s, s->row))
		c->stands_for = s->row->folded;
	d.sum = denied_sum(&d, s->hash);
	*s->row = d;
}

#endif

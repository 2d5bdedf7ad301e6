/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The one place that says yes or no to a flow. Entries come compiled from
 * mesh/policy; here they are only found: the highest precedence wins, among
 * equals a deny wins, then the more specific entry. */
#ifndef FAIRLEAD_POLICY_H
#define FAIRLEAD_POLICY_H

#include "fairlead/maps.h"
#include "global.h"

struct best_match {
	__u64 score; /* 0: nothing matched yet */
	__u32 rule_id;
	enum verdict verdict;
	__u8 pad[3];
};

/* An entry's rank: precedence first, then how strict it is. Never 0. */
static __always_inline __u64 policy_score(const struct policy_entry *e)
{
	__u32 strictness = e->verdict == FL_VERDICT_ALLOW ? 1 : e->verdict == FL_VERDICT_AUDIT_DENY ? 2 : 3;

	return (__u64)e->precedence << 2 | strictness;
}

FL_GLOBAL int fl_policy_try(struct policy_key *k, struct best_match *best)
{
	struct policy_key key; /* 6.1 takes no argument's memory as a map's key */
	struct policy_entry *e;
	__u64 score;

	if (!k || !best)
		return 0;
	key = *k;
	e = bpf_map_lookup_elem(&fl_policy, &key);
	if (!e)
		return 0;
	score = policy_score(e);
	if (score <= best->score)
		return 0;
	best->score = score;
	best->rule_id = e->rule_id;
	best->verdict = e->verdict;
	return 0;
}

#define FL_PREFIX_ANY (1U << 0)
#define FL_PREFIX_EXACT (1U << 16)
#define FL_PREFIX_RANGES 0xfffeU

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

/* Tries the entries with ports, most specific first. The compiler splits port
 * ranges into prefixes; only lengths that occur are looked up. */
static __always_inline void policy_try_ports(struct policy_key *k, __u32 prefixes, __u16 port,
					     struct best_match *best)
{
	if (prefixes & FL_PREFIX_EXACT) {
		k->port_prefix = 16;
		k->port = port;
		fl_policy_try(k, best);
	}
	if (!(prefixes & FL_PREFIX_RANGES))
		return;
	for (int prefix = 15; prefix > 0; prefix--) {
		if (!(prefixes & (1U << prefix)))
			continue;
		k->port_prefix = prefix;
		k->port = port & (__u16)(0xffff << (16 - prefix));
		fl_policy_try(k, best);
	}
}

struct decision {
	__u32 rule_id;
	enum verdict verdict;
	enum reason reason; /* of a denial */
};

static __always_inline __u64 decision_pack(__u32 rule_id, enum verdict verdict, enum reason reason)
{
	return (__u64)rule_id << 32 | (__u32)reason << 8 | verdict;
}

static __always_inline struct decision decision_unpack(__u64 packed)
{
	return (struct decision){
		.rule_id = packed >> 32,
		.verdict = packed & 0xff,
		.reason = packed >> 8 & 0xff,
	};
}

/* Scalars in and out (decision_unpack), as a global function wants it.
 * dir_proto: direction << 8 | protocol. */
FL_GLOBAL __u64 fl_policy_decide(__u32 subject, __u32 peer, __u32 dir_proto, __u32 dport)
{
	__u8 proto = dir_proto, dir = dir_proto >> 8;
	struct subject_key sk = { .identity = subject, .dir = dir };
	struct subject *s = bpf_map_lookup_elem(&fl_subjects, &sk);
	struct policy_key k = { .subject = subject, .dir = dir };
	struct best_match best = {};

	if (!s) /* no policy selects it */
		return decision_pack(0, FL_VERDICT_ALLOW, FL_REASON_NONE);

	for (int kind = 0; kind < FL_KIND_COUNT; kind++) {
		__u32 prefixes = s->prefixes[kind];

		if (!prefixes)
			continue;
		k.peer = kind & 2 ? 0 : peer;
		k.proto = kind & 1 ? 0 : proto;
		if (has_ports(proto))
			policy_try_ports(&k, prefixes, dport, &best);
		if (prefixes & FL_PREFIX_ANY) {
			k.port_prefix = 0;
			k.port = 0;
			fl_policy_try(&k, &best);
		}
	}

	if (best.score) {
		if (best.verdict == FL_VERDICT_ALLOW || best.verdict == FL_VERDICT_AUDIT_DENY)
			return decision_pack(best.rule_id, best.verdict, FL_REASON_NONE);
		/* A denial, or a verdict we don't know: that must not open. */
		return decision_pack(best.rule_id, FL_VERDICT_DENY, FL_REASON_POLICY_DENIED);
	}
	if (!(s->flags & FL_SUBJECT_ISOLATED))
		return decision_pack(0, FL_VERDICT_ALLOW, FL_REASON_NONE);
	return decision_pack(s->default_rule,
			     s->flags & FL_SUBJECT_AUDIT ? FL_VERDICT_AUDIT_DENY : FL_VERDICT_DENY,
			     FL_REASON_DEFAULT_DENIED);
}

static __always_inline struct decision policy_decide(__u32 subject, __u32 peer, enum direction dir,
						     __u8 proto, __u16 dport)
{
	return decision_unpack(fl_policy_decide(subject, peer, (__u32)dir << 8 | proto, dport));
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The one place that decides by policy. A subject's lines are scanned in order:
 * the first deny or allow that matches decides, an audit line before it turns
 * the allow into an audit-deny, and without an allow the subject's default
 * decides. Whatever is absent (the agent late, a map full) denies.
 *
 * A peer is in the sets of its identity and in those of the CIDR around its
 * address. One that nobody vouches for could be in any: no line about a set
 * allows it, and every one denies it. */
#ifndef FAIRLEAD_POLICY_H
#define FAIRLEAD_POLICY_H

#include "fairlead/maps.h"
#include "global.h"
#include "ipcache.h"

struct policy_query {
	__u8 addr[16] __attribute__((aligned(8))); /* the peer's */
	__u32 subject; /* identities */
	__u32 peer; /* UNKNOWN: could be anybody */
	__u32 epoch;
	__u16 dport; /* where the flow goes to */
	__u8 proto;
	__u8 family;
	enum direction dir;
	__u8 pad[3];
};

struct decision {
	__u32 rule_id;
	__u32 group;
	__u32 class;
	__u32 block; /* 0: none, or no line names one */
	__u32 block_class;
	enum verdict verdict;
	enum reason reason; /* of a denial */
	__u8 by_default; /* no line decided */
	__u8 subject_flags;
};

/* The state of a scan. */
struct scan {
	__u32 group;
	__u32 lines;
	__u32 class;
	__u32 block_class; /* or class once more */
	__u32 rule_id;
	__u32 audit_rule;
	__u32 port;
	__u8 proto;
	__u8 unknown; /* the peer could be anybody */
	__u8 audited;
	enum verdict verdict; /* NONE until something decides */
	enum reason reason;
};

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

static __always_inline struct subject *subject_find(__u32 identity, enum direction dir, __u32 epoch)
{
	struct subject_key k = { .identity = identity, .dir = dir, .bank = epoch & 1 };

	return bpf_map_lookup_elem(&fl_subjects, &k);
}

static __always_inline struct identity_class *class_find(__u32 identity)
{
	return bpf_map_lookup_elem(&fl_identities, &identity);
}

/* Protocols without ports are given this one, which is in no range. */
#define FL_NO_PORT 0x10000

/* Whether the line is about this packet. One branch for the whole line, at the
 * caller: half of these would be mispredicted, and the verifier would follow
 * each of them in each of a chunk's lines. Differences are 64 bits wide, so
 * their sign says which side is larger. */
static __always_inline bool line_matches(const struct policy_line *l, const struct class_sets *c,
					 const struct class_sets *block, __u64 unknown, __u64 proto,
					 __u64 port)
{
	__u64 set = l->set, from = l->port_from, to = l->port_to, want = l->proto;
	__u64 outside = (__s64)((port - from) | (to - port)) >> 63; /* all ones or none */
	__u64 member = (c->sets[set / 64 % FL_SET_WORDS] | block->sets[set / 64 % FL_SET_WORDS]) >>
		       (set % 64);
	__u64 anybody = unknown & (l->verdict != FL_VERDICT_ALLOW);
	/* Negative: set 0 is everybody, and one that can't be is tried on all. */
	__u64 always = (set - 1) | (FL_SET_COUNT - 1 - set), mismatch;

	barrier_var(always); /* or its sign becomes a branch again */
	mismatch = (want ^ proto) * want; /* 0: the same, or any */
	mismatch |= outside & (from | to);
	mismatch |= ~(member | always >> 63 | anybody) & 1;
	return !mismatch;
}

/* Whether the scan ends with this line, which matches. */
static __always_inline bool line_decides(struct scan *s, const struct policy_line *l)
{
	/* Whom a set means that can't be, nobody knows: it allows nobody, and
	 * denies everybody. */
	if (l->set >= FL_SET_COUNT && l->verdict == FL_VERDICT_ALLOW)
		return false;
	if (l->verdict == FL_VERDICT_AUDIT_DENY) {
		if (!s->audited)
			s->audit_rule = l->rule_id;
		s->audited = true;
		return false;
	}
	s->rule_id = l->rule_id;
	s->verdict = FL_VERDICT_ALLOW;
	if (l->verdict != FL_VERDICT_ALLOW) { /* a deny, or what we don't know */
		s->verdict = FL_VERDICT_DENY;
		s->reason = FL_REASON_POLICY_DENIED;
	}
	return true;
}

/* Scans a chunk of the group. Returns 1 when a line has decided. */
static __always_inline int scan_chunk(struct scan *s, __u32 chunk)
{
	struct class_sets *sets, *block;
	struct group_chunk *c;
	struct group_key k;
	__u32 class, left;
	__u64 proto, port, unknown;

	if (!s)
		return 1;
	k.group = s->group;
	k.chunk = chunk;
	class = s->class;
	left = s->lines - chunk * FL_GROUP_LINES;
	c = bpf_map_lookup_elem(&fl_groups, &k);
	sets = bpf_map_lookup_elem(&fl_classes, &class);
	class = s->block_class;
	block = bpf_map_lookup_elem(&fl_classes, &class);
	port = s->port;
	proto = s->proto;
	unknown = s->unknown;
	if (!c || !sets || !block) {
		s->verdict = FL_VERDICT_DENY;
		s->reason = FL_REASON_NO_POLICY;
		s->rule_id = 0;
		return 1;
	}
	for (__u32 i = 0; i < FL_GROUP_LINES && i < left; i++) {
		const struct policy_line *l = &c->line[i];

		if (line_matches(l, sets, block, unknown, proto, port) && line_decides(s, l))
			return 1;
	}
	return 0;
}

FL_GLOBAL int fl_scan_chunk(struct scan *s, __u32 chunk)
{
	return scan_chunk(s, chunk);
}

/* For bpf_loop, which takes static functions and a context on the stack. The
 * scan is in here once more: another call would be too deep for kernels that
 * count 32 bytes of stack for each. */
struct scan_loop {
	struct scan *s;
};

static long scan_rest(__u32 i, struct scan_loop *loop)
{
	return scan_chunk(loop->s, i + 1) ? 1 : 0;
}

/* False: no group can have so many lines. Most have one chunk. */
static __always_inline bool scan_group(struct scan *s)
{
	struct scan_loop loop = { .s = s };

	if (!s->lines || fl_scan_chunk(s, 0) || s->lines <= FL_GROUP_LINES)
		return true;
	/* An int: inlined (5.18 on), it returns -E2BIG in 32 bits only. */
	return (int)bpf_loop((s->lines - 1) / FL_GROUP_LINES, scan_rest, &loop, 0) >= 0;
}

static __always_inline void decide(struct decision *d, enum verdict verdict, __u32 rule_id,
				   enum reason reason)
{
	d->verdict = verdict;
	d->rule_id = rule_id;
	d->reason = reason;
}

/* No line decided: the subject's default does. */
static __always_inline void decide_by_default(const struct subject *s, const struct scan *scan,
					      struct decision *d)
{
	bool isolated = s->flags & FL_SUBJECT_ISOLATED, audit = s->flags & FL_SUBJECT_AUDIT;

	d->by_default = isolated && (!audit || !scan->audited);
	if (isolated && !audit)
		decide(d, FL_VERDICT_DENY, s->default_rule, FL_REASON_DEFAULT_DENIED);
	else if (scan->audited)
		decide(d, FL_VERDICT_AUDIT_DENY, scan->audit_rule, FL_REASON_NONE);
	else if (isolated)
		decide(d, FL_VERDICT_AUDIT_DENY, s->default_rule, FL_REASON_NONE);
	else
		decide(d, FL_VERDICT_ALLOW, 0, FL_REASON_NONE);
}

/* The classes of the peer and of the CIDR around its address. False: a row is
 * missing. */
static __always_inline bool classes_find(const struct policy_query *q, const struct subject *s,
					 struct decision *d)
{
	struct identity_class *class;

	if (q->peer == FL_IDENTITY_UNKNOWN)
		return true; /* class 0 is in no set */
	class = class_find(q->peer);
	if (!class)
		return false;
	d->class = class->class;
	if (!(s->flags & FL_SUBJECT_BLOCKS))
		return true;
	d->block = block_find(q->family, q->addr);
	if (!d->block)
		return true;
	class = class_find(d->block);
	if (!class)
		return false;
	d->block_class = class->class;
	return true;
}

/* scan is for this function to use: the stack is short. */
FL_GLOBAL int fl_policy_decide(const struct policy_query *q, struct decision *d, struct scan *scan)
{
	struct subject *s;

	if (!q || !d || !scan)
		return 0;
	__builtin_memset(scan, 0, sizeof(*scan));
	s = subject_find(q->subject, q->dir, q->epoch);
	if (!s || !classes_find(q, s, d)) {
		decide(d, FL_VERDICT_DENY, 0, FL_REASON_NO_POLICY);
		return 0;
	}
	d->group = scan->group = s->group;
	scan->class = d->class;
	scan->block_class = d->block ? d->block_class : d->class;
	scan->unknown = q->peer == FL_IDENTITY_UNKNOWN;
	d->subject_flags = s->flags;
	scan->lines = s->lines;
	scan->port = has_ports(q->proto) ? q->dport : FL_NO_PORT;
	scan->proto = q->proto;
	if (!scan_group(scan))
		decide(d, FL_VERDICT_DENY, 0, FL_REASON_NO_POLICY);
	else if (scan->verdict == FL_VERDICT_NONE)
		decide_by_default(s, scan, d);
	else if (scan->verdict == FL_VERDICT_ALLOW && scan->audited)
		decide(d, FL_VERDICT_AUDIT_DENY, scan->audit_rule, FL_REASON_NONE);
	else
		decide(d, scan->verdict, scan->rule_id, scan->reason);
	return 0;
}

#endif

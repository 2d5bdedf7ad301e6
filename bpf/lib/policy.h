/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The one place that decides by policy. A subject's lines are scanned in order:
 * the first deny or allow that matches decides, a pass goes on behind its tier,
 * and where no line decides the subject's default does. Two questions are asked
 * in one scan: what lines that enforce say, and what all lines would say if
 * those of audit enforced, too. Where only the second answer is deny, the
 * verdict is audit-deny (docs/decisions/0010). Whatever is absent (the agent
 * late, a map full) denies.
 *
 * A peer is in the sets of its identity and in those of the CIDR around its
 * address. One that nobody vouches for could be in any: no line about a set
 * allows it, and every one denies it. The subject's own node is denied only by
 * lines about a set that it is in, never by one about everybody, and not by
 * default unless nobody knows what the subject's policies say. */
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

/* Audit lines of chunks before this one don't count: none does any more. */
#define FL_AUDIT_SETTLED 0xffffffff

/* The state of a scan. */
struct scan {
	__u32 group;
	__u32 lines;
	__u32 chunk; /* the next to look at */
	__u32 audit_from; /* the first chunk that audit has not passed over */
	__u32 class;
	__u32 block_class; /* or class once more */
	__u32 rule_id;
	__u32 audit_rule;
	__u32 port;
	__u32 spared; /* a mask of verdicts: such lines about everybody don't mean the peer */
	__u8 proto;
	__u8 unknown; /* the peer could be anybody */
	__u8 audited; /* with all lines enforced it is denied, by audit_rule */
	__u8 allowed; /* by lines that enforce; audit passed them over and goes on */
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

#define FL_DENIALS (1 << FL_VERDICT_DENY | 1 << FL_VERDICT_AUDIT_DENY)

/* Protocols without ports are given this one, which is in no range. ICMP has its
 * type + 1 as port. */
#define FL_NO_PORT 0x10000

/* Whom a set means that can't be, nobody knows, nor whether somebody unknown is
 * in a set. 1 or 0. */
static __always_inline __u64 peers_unclear(__u64 set, __u64 unknown)
{
	return ((FL_SET_COUNT - 1 - set) | (-set & -unknown)) >> 63;
}

/* A verdict that we don't know is none, and denies. */
static __always_inline __u64 verdict_known(__u64 verdict)
{
	__u64 known = (__s64)(verdict - FL_VERDICT_AUDIT_PASS - 1) >> 63;

	barrier_var(known);
	return verdict & known;
}

/* What is asked of a line comes one after another: all at once takes more
 * registers than there are, and no room is left on the stack. */
#define IN_TURN(v) asm volatile("" : "+r"(v) : : "memory")

/* Whether the line is about this packet. One branch for the whole line, at the
 * caller: half of these would be mispredicted, and the verifier would follow
 * each of them in each of a chunk's lines. Differences are 64 bits wide, so
 * their sign says which side is larger. */
static __always_inline bool line_matches(const struct scan *s, const struct policy_line *l,
					 const struct class_sets *sets, const struct class_sets *block)
{
	const __u64 allows = 1 << FL_VERDICT_ALLOW | 1 << FL_VERDICT_AUDIT_ALLOW;
	__u64 from = l->port_from, to = l->port_to, port = s->port;
	/* All ones outside of the range, unless that is all ports. */
	__u64 mismatch = (__s64)((port - from) | (to - port)) >> 63 & (from | to), want, set, in, unclear;

	IN_TURN(mismatch);
	want = l->proto;
	mismatch |= (want ^ s->proto) * want; /* 0: the same, or any */
	IN_TURN(mismatch);
	set = l->set;
	in = sets->sets[set / 64 % FL_SET_WORDS];
	in |= block->sets[set / 64 % FL_SET_WORDS];
	in = in >> set % 64 | (set - 1) >> 63; /* set 0 is everybody */
	IN_TURN(in);
	unclear = peers_unclear(set, s->unknown);
	IN_TURN(unclear);
	mismatch |= ~(in | unclear) & 1;
	mismatch |= (set - 1) >> 63 & s->spared >> verdict_known(l->verdict);
	IN_TURN(mismatch);
	/* It allows nobody, and denies everybody. */
	mismatch |= unclear & allows >> verdict_known(l->verdict);
	return !mismatch;
}

/* What a line does that matches. A pass, of which nobody knows whether it means
 * the peer, denies: what is behind it may be open to others. */
static __always_inline __u32 line_verdict(const struct scan *s, const struct policy_line *l, __u32 *rule_id)
{
	__u32 verdict = verdict_known(l->verdict), closed = peers_unclear(l->set, s->unknown) & verdict >> 2;

	barrier_var(closed);
	*rule_id = l->rule_id & (closed - 1); /* a pass has none */
	return verdict >> closed; /* from PASS to DENY, in audit as well */
}

/* A line of audit: the first one settles what is reported, but for a pass, which
 * leads to the chunk from which on it is settled. True where that was all that
 * the scan still had to find out. Verdicts are distinguished by their bits (deny 3,
 * allow 5, pass 6): the scan goes on behind such lines, and the verifier would
 * follow each branch through all of them. */
static __always_inline bool line_audits(struct scan *s, __u32 verdict, __u32 rule_id)
{
	if (s->chunk < s->audit_from)
		return false;
	s->audit_from = rule_id | -(verdict & 1); /* FL_AUDIT_SETTLED but for a pass */
	s->audit_rule = rule_id;
	s->audited = verdict & verdict >> 1 & 1;
	return s->allowed & verdict & 1;
}

static __always_inline long deny(struct scan *s, __u32 rule_id, enum reason reason)
{
	s->verdict = FL_VERDICT_DENY;
	s->reason = reason;
	s->rule_id = rule_id;
	return 1;
}

/* Another chunk goes on. Backwards no line passes. */
static __always_inline long pass_to(struct scan *s, __u32 chunk)
{
	if (chunk <= s->chunk)
		return deny(s, 0, FL_REASON_NO_POLICY);
	s->chunk = chunk;
	return 0;
}

/* A line that matches, and is not of audit. 0: the scan goes on with s->chunk. */
static __always_inline long line_decides(struct scan *s, __u32 verdict, __u32 rule_id)
{
	if (verdict == FL_VERDICT_PASS)
		return pass_to(s, rule_id);
	if (s->allowed) {
		/* By an enforcing line, which audit passed over: what is left to
		 * find out is what this line would have done. */
		if (verdict != FL_VERDICT_ALLOW) {
			s->audited = true;
			s->audit_rule = rule_id;
		}
		s->audit_from = FL_AUDIT_SETTLED;
		return 1;
	}
	if (verdict != FL_VERDICT_ALLOW) /* a deny, or what we don't know */
		return deny(s, rule_id, FL_REASON_POLICY_DENIED);
	s->rule_id = rule_id;
	if (s->audit_from != FL_AUDIT_SETTLED && s->chunk < s->audit_from) {
		s->allowed = true;
		return pass_to(s, s->audit_from);
	}
	s->verdict = FL_VERDICT_ALLOW;
	return 1;
}

/* bpf_loop takes static functions, and a context on the stack. */
struct scan_loop {
	struct scan *s;
};

/* Scans the next chunk of the group. 1: that was enough. What a line does that
 * decides is found behind the loop: the verifier goes there once for all lines. */
static long scan_chunk(__u32 n, struct scan_loop *loop)
{
	const __u32 audits = 1 << FL_VERDICT_AUDIT_DENY | 1 << FL_VERDICT_AUDIT_ALLOW | 1 << FL_VERDICT_AUDIT_PASS;
	struct scan *s = loop->s;
	struct group_key k = { .group = s->group, .chunk = s->chunk };
	__u32 class = s->class, left = s->lines - k.chunk * FL_GROUP_LINES;
	struct class_sets *sets, *block;
	struct group_chunk *c;

	(void)n;
	if (k.chunk > (s->lines - 1) / FL_GROUP_LINES)
		return 1; /* passed over all that there is */
	c = bpf_map_lookup_elem(&fl_groups, &k);
	sets = bpf_map_lookup_elem(&fl_classes, &class);
	class = s->block_class;
	block = bpf_map_lookup_elem(&fl_classes, &class);
	if (!c || !sets || !block)
		return deny(s, 0, FL_REASON_NO_POLICY);
	for (__u32 i = 0; i < FL_GROUP_LINES && i < left; i++) {
		const struct policy_line *l = &c->line[i];
		__u32 verdict, rule_id;

		if (!line_matches(s, l, sets, block))
			continue;
		verdict = line_verdict(s, l, &rule_id);
		if (!(audits >> verdict & 1))
			return line_decides(s, verdict, rule_id);
		if (line_audits(s, verdict, rule_id))
			return 1;
	}
	s->chunk++;
	return 0;
}

/* False: no group can have so many lines. */
static __always_inline bool scan_group(struct scan *s)
{
	struct scan_loop loop = { .s = s };

	if (!s->lines)
		return true;
	/* An int: inlined (5.18 on), it returns -E2BIG in 32 bits only. */
	return (int)bpf_loop((s->lines - 1) / FL_GROUP_LINES + 1, scan_chunk, &loop, 0) >= 0;
}

static __always_inline void decide(struct decision *d, enum verdict verdict, __u32 rule_id,
				   enum reason reason)
{
	d->verdict = verdict;
	d->rule_id = rule_id;
	d->reason = reason;
}

/* No line decided, or none did with those of audit: the subject's default does. */
static __always_inline void decide_by_default(const struct subject *s, const struct scan *scan,
					      struct decision *d)
{
	bool isolated = s->flags & FL_SUBJECT_ISOLATED, audit = s->flags & FL_SUBJECT_AUDIT;

	if (scan->spared && !(s->flags & FL_SUBJECT_CLOSED))
		isolated = false;

	if (isolated && !audit && !scan->allowed) {
		d->by_default = true;
		decide(d, FL_VERDICT_DENY, s->default_rule, FL_REASON_DEFAULT_DENIED);
	} else if (scan->audited) {
		decide(d, FL_VERDICT_AUDIT_DENY, scan->audit_rule, FL_REASON_NONE);
	} else if (isolated && scan->audit_from != FL_AUDIT_SETTLED) {
		d->by_default = true;
		decide(d, FL_VERDICT_AUDIT_DENY, s->default_rule, FL_REASON_NONE);
	} else {
		decide(d, FL_VERDICT_ALLOW, scan->allowed ? scan->rule_id : 0, FL_REASON_NONE);
	}
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
	scan->spared = q->peer == FL_IDENTITY_HOST ? FL_DENIALS : 0;
	d->subject_flags = s->flags;
	scan->lines = s->lines;
	scan->port = has_ports(q->proto) || is_icmp(q->proto) ? q->dport : FL_NO_PORT;
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

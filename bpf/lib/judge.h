/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* From a packet to a verdict about its flow, and whether a verdict still holds. */
#ifndef FAIRLEAD_JUDGE_H
#define FAIRLEAD_JUDGE_H

#include "policy.h"

#include "conntrack.h"
#include "context.h"
#include "ipcache.h"

/* What is thought of a flow, apart from its state. */
struct judgement {
	struct remote remote;
	struct decision policy; /* all zero when no policy was asked */
	__u32 rule_id;
	enum verdict verdict;
	enum reason reason; /* why it passes or is dropped */
	__u8 by_policy;
	__u8 pad;
};

/* fl_scratch, while a flow is judged. */
struct judging {
	struct judgement j;
	struct policy_query q;
	struct ct_entry fresh; /* the flow's new entry */
};

_Static_assert(sizeof(struct judging) <= sizeof(struct scratch), "it must fit");

/* NULL is for the verifier: the row is always there. */
static __always_inline struct judging *judging_begin(void)
{
	__u32 zero = 0;
	struct judging *s = bpf_map_lookup_elem(&fl_scratch, &zero);

	if (s)
		__builtin_memset(&s->j, 0, sizeof(s->j));
	return s;
}

/* Asks the policy of the pod. */
static __always_inline void judge_by_policy(const struct pod_ctx *c, enum direction dir, __u16 dport,
					    struct judging *s)
{
	struct judgement *j = &s->j;

	s->q = (struct policy_query){
		.subject = c->subject,
		.peer = j->remote.identity,
		.epoch = c->epoch,
		.dport = dport,
		.proto = c->p.proto,
		.family = c->p.family,
		.dir = dir,
	};
	__builtin_memcpy(s->q.addr, ctx_peer_addr(c), 16);
	fl_policy_decide(&s->q, &j->policy);
	j->by_policy = true;
	j->rule_id = j->policy.rule_id;
	j->verdict = j->policy.verdict;
	j->reason = j->verdict == FL_VERDICT_ALLOW ? FL_REASON_FORWARDED :
		    j->verdict == FL_VERDICT_DENY  ? j->policy.reason :
						     FL_REASON_AUDITED;
}

/* Judges the flow by who opened it: dir is the direction of its first packet,
 * dport the port that packet went to. The judgement is all zero before. */
FL_GLOBAL int fl_judge(const struct pod_ctx *c, __u32 dir, __u32 dport, struct judging *s)
{
	struct judgement *j;

	if (!c || !s)
		return 0;
	j = &s->j;
	j->verdict = FL_VERDICT_ALLOW;
	remote_lookup(c->p.family, ctx_peer_addr(c), &j->remote);

	/* The node may always talk to its pods (kubelet probes) and they to it:
	 * NetworkPolicy says so, and it owns them anyway. */
	if (j->remote.flags & FL_REMOTE_HOST) {
		j->reason = FL_REASON_HOST;
		return 0;
	}
	/* A service address that was not translated at the socket belongs to
	 * kube-proxy; the real destination meets its own policy at arrival. */
	if (dir == FL_DIR_EGRESS && (j->remote.flags & FL_REMOTE_SERVICE)) {
		j->reason = FL_REASON_SERVICE;
		return 0;
	}
	/* Inside a cluster's range, but no entry for this address. */
	if (j->remote.identity == FL_IDENTITY_UNKNOWN && !(j->remote.flags & FL_REMOTE_UNVOUCHED)) {
		j->verdict = FL_VERDICT_DENY;
		j->reason = dir == FL_DIR_EGRESS ? FL_REASON_UNKNOWN_DESTINATION :
						   FL_REASON_UNKNOWN_SOURCE;
		return 0;
	}
	judge_by_policy(c, dir, dport, s);
	return 0;
}

/* Where packets of a flow go, from what is known about the other side. A flow
 * opened by the pod follows the address; the answers to a flow opened by the
 * peer go back the way it came. */
static __always_inline __u32 tunnel_flags(const struct judgement *j, bool by_pod, bool came_by_tunnel)
{
	__u32 flags = 0;

	if ((j->remote.flags & FL_REMOTE_TUNNEL) || (!by_pod && came_by_tunnel))
		flags |= FL_CT_VIA_TUNNEL;
	if (j->remote.flags & FL_REMOTE_REQUIRE_TUNNEL)
		flags |= FL_CT_REQUIRE_TUNNEL | FL_CT_VIA_TUNNEL;
	return flags;
}

/* The entry of a flow that was judged so. */
static __always_inline void judged_entry(const struct pod_ctx *c, const struct judgement *j, bool by_pod,
					 bool came_by_tunnel, struct ct_entry *e)
{
	__u32 flags = (by_pod ? FL_CT_BY_POD : 0) | tunnel_flags(j, by_pod, came_by_tunnel);

	if (j->verdict == FL_VERDICT_DENY)
		flags |= FL_CT_DENIED;
	if (j->verdict == FL_VERDICT_AUDIT_DENY)
		flags |= FL_CT_AUDIT;
	if (j->by_policy)
		flags |= FL_CT_BY_POLICY;
	if (j->policy.by_default)
		flags |= FL_CT_BY_DEFAULT;
	*e = (struct ct_entry){
		.last_seen = c->now,
		.flags = flags,
		.epoch = c->epoch,
		.address_epoch = c->address_epoch,
		.subject = c->subject,
		.peer = j->remote.peer,
		.reason = j->reason,
		.subject_flags = j->policy.subject_flags,
		.identity = j->remote.identity,
		.rule_id = j->rule_id,
		.group = j->policy.group,
		.class = j->policy.class,
		.block = j->policy.block,
		.block_class = j->policy.block_class,
	};
}

/* Nothing happened since the flow was judged. */
static __always_inline bool verdict_is_current(const struct pod_ctx *c, const struct ct_entry *e)
{
	return e->epoch == c->epoch && e->subject == c->subject &&
	       e->address_epoch == c->address_epoch;
}

/* The peer and the CIDR around its address are in the same sets as then. Which
 * CIDR that is can't have changed: flows are judged in full when blocks do. */
static __always_inline bool classes_still_hold(const struct ct_entry *e)
{
	struct identity_class *class;

	if (e->identity != FL_IDENTITY_UNKNOWN) {
		class = class_find(e->identity);
		if (!class || class->class != e->class)
			return false;
	}
	if (!e->block)
		return true;
	class = class_find(e->block);
	return class && class->class == e->block_class;
}

/* Policy changed, but for other pods or other peers: the same lines would be
 * scanned for the same class, and end the same. */
static __always_inline bool verdict_still_holds(const struct pod_ctx *c, const struct ct_entry *e,
						enum direction dir)
{
	struct subject *s;

	if (e->subject != c->subject || e->address_epoch != c->address_epoch ||
	    epoch_before(e->epoch, c->full_epoch))
		return false;
	if (!(e->flags & FL_CT_BY_POLICY))
		return true;
	s = subject_find(c->subject, dir, c->epoch);
	return s && s->group == e->group && s->flags == e->subject_flags &&
	       classes_still_hold(e) &&
	       (!(e->flags & FL_CT_BY_DEFAULT) || s->default_rule == e->rule_id);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* May this packet of a pod pass? Known flows carry their verdict; new ones, and
 * known ones that something changed for, are judged. Used by both pod hooks. */
#ifndef FAIRLEAD_FLOW_H
#define FAIRLEAD_FLOW_H

#include "judge.h"

#include "denied.h"
#include "fragments.h"

static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline bool mid_stream(const struct packet *p)
{
	return p->proto == IPPROTO_TCP && !is_syn(p);
}

/* How a flow that the other side opened is judged. Of a connection to this node's
 * address, tracking knows the client. */
static __always_inline __u32 opened_by_other(const struct pod_ctx *c)
{
	return FL_CT_REPLACING | (ctx_from_pod(c) ? FL_CT_TRANSLATED : FL_CT_BY_POD);
}

/* Which side opened a TCP flow that the table doesn't know and that doesn't begin
 * here: it ran before the agent came, or the table lost it. Where nobody knows,
 * it must be allowed either way, else a connection that policy cut, and the table
 * then forgot, would go on as if the other side had opened it. False: it isn't. */
static __always_inline bool opener_known(struct __sk_buff *skb, struct pod_ctx *c, struct judging *s,
					 bool *other)
{
	enum opener opener = fl_opener_find(skb, &c->p);
	struct judgement *j = &s->j;

	*other = opener == FL_OPENER_OTHER;
	if (opener != FL_OPENER_UNKNOWN)
		return true;
	fl_judge(skb, c, c->p.sport, opened_by_other(c), s);
	/* Nothing answers from a service's address but what the pod asked. */
	if (j->verdict != FL_VERDICT_DENY || j->remote.flags & FL_REMOTE_SERVICE) {
		__builtin_memset(j, 0, sizeof(*j));
		return true;
	}
	note(c, j->identity, j->rule_id, ctx_from_pod(c) ? FL_DIR_INGRESS : FL_DIR_EGRESS,
	     FL_VERDICT_DENY, FL_EVENT_NEW);
	return false;
}

/* A packet of a flow that is not in the table. */
static __always_inline enum reason open_flow(struct __sk_buff *skb, struct pod_ctx *c, const union ct_key *k,
					     const struct denied_slot *denied)
{
	struct judging *s = judging_begin();
	bool from_pod = ctx_from_pod(c), other = false, by_pod;
	struct judgement *j;

	if (!s)
		return FL_REASON_FLOW_TABLE;
	j = &s->j;
	if (mid_stream(&c->p) && !opener_known(skb, c, s, &other))
		return FL_REASON_NOT_OPENED;
	by_pod = from_pod != other;
	fl_judge(skb, c, other ? c->p.sport : c->p.dport, other ? opened_by_other(c) : 0, s);
	/* The address says "believe me only from the tunnel": in the clear it
	 * is either forged or leaked. */
	if (!from_pod && !c->from_tunnel && (j->remote.flags & FL_REMOTE_REQUIRE_TUNNEL)) {
		j->verdict = FL_VERDICT_DENY;
		j->reason = FL_REASON_PLAINTEXT;
		j->rule_id = 0;
	}
	/* Node traffic is not policy's: no event for each probe. */
	if (j->reason != FL_REASON_HOST)
		note(c, j->identity, j->rule_id, by_pod ? FL_DIR_EGRESS : FL_DIR_INGRESS, j->verdict,
		     FL_EVENT_NEW);
	if (j->verdict == FL_VERDICT_DENY) {
		/* What hides behind the node's address is not all denied. */
		if (!j->translated && !other)
			denied_remember(c, denied, j->identity, j->rule_id, j->reason);
		return j->reason;
	}
	judged_entry(c, j, by_pod, c->from_tunnel, &s->fresh);
	if (c->p.tcp_flags & TCP_RST)
		s->fresh.flags |= from_pod ? FL_CT_RST_POD : FL_CT_RST_PEER;
	if (other)
		s->fresh.flags |= FL_CT_REPLIED;
	/* Without an entry the answer would be judged as a flow of its own. To an
	 * answer there is none, and its entry would be that of the question. */
	if (c->p.icmp_role != FL_ICMP_UNASKED && ct_store(c->p.family, k, &s->fresh))
		return FL_REASON_FLOW_TABLE;
	c->via_tunnel = !!(s->fresh.flags & FL_CT_VIA_TUNNEL);
	c->peer = s->fresh.peer;
	return j->reason;
}

/* Only looks like a packet of the flow. */
static __always_inline bool not_of_flow(const struct pod_ctx *c, const struct ct_entry *e)
{
	bool by_pod = e->flags & FL_CT_BY_POD, from_pod = ctx_from_pod(c);
	bool translated = e->flags & FL_CT_TRANSLATED;

	/* A SYN that doesn't continue it: the other side opens a connection
	 * over the same pair of ports, a closed one is opened anew, or the client
	 * is another one. That must face policy itself, or an old flow would let
	 * it in. */
	if (is_syn(&c->p) && (by_pod != from_pod || translated || ct_closing(e->flags)))
		return true;
	/* What the node sends and what it passes on have the same address, and one
	 * after the other may have the same port. */
	if (by_pod || from_pod)
		return false;
	return c->forwarded ? e->reason == FL_REASON_HOST && !translated : translated;
}

/* The client behind the node's address may be another one than the one that the
 * flow was judged for, with the same port: tracking forgets what ended or was
 * idle, sooner than we do. Every packet would have to be asked about; one of a TCP
 * connection that the pod doesn't have does no harm, so there the first one of
 * each tick is. */
static __always_inline bool client_may_change(const struct pod_ctx *c, const struct ct_entry *e)
{
	if (!(e->flags & FL_CT_TRANSLATED))
		return false;
	return e->last_seen != c->now || (c->p.proto != IPPROTO_TCP && !ctx_from_pod(c));
}

/* The running flow this packet belongs to, if any. */
static __always_inline struct ct_entry *flow_find(struct pod_ctx *c, const union ct_key *k)
{
	struct ct_entry *e = ct_find(c->p.family, k);

	if (!e || ct_expired(e, c->p.proto, c->now) || not_of_flow(c, e))
		return NULL;
	return e;
}

/* What the flow's entry says about this packet. */
static __always_inline enum reason flow_verdict(struct pod_ctx *c, const struct ct_entry *e)
{
	c->peer_identity = e->identity;
	if (e->flags & FL_CT_DENIED)
		note(c, e->identity, e->rule_id, e->flags & FL_CT_BY_POD ? FL_DIR_EGRESS : FL_DIR_INGRESS,
		     FL_VERDICT_DENY, FL_EVENT_REEVALUATED);
	else if (!ctx_from_pod(c) && !c->from_tunnel && (e->flags & FL_CT_REQUIRE_TUNNEL))
		return FL_REASON_PLAINTEXT;
	c->via_tunnel = !!(e->flags & FL_CT_VIA_TUNNEL);
	c->peer = e->peer;
	return e->reason;
}

/* Policy, the peer's address or the pod's identity changed since this flow was
 * judged. Whichever side the packet comes from, the flow is judged as it was
 * opened: that is in the entry. A flow that is no longer allowed stays known, as
 * denied, so that a late answer can't open it again from the other side. */
static __always_inline enum reason rejudge(struct __sk_buff *skb, struct pod_ctx *c, const union ct_key *k, struct ct_entry *e)
{
	__u32 flags = e->flags, seen = e->last_seen;
	bool by_pod = flags & FL_CT_BY_POD, from_pod = ctx_from_pod(c);
	enum direction dir = by_pod ? FL_DIR_EGRESS : FL_DIR_INGRESS;
	struct judging *s = judging_begin();
	struct judgement *j;
	enum reason r;

	if (!s)
		return FL_REASON_FLOW_TABLE;
	j = &s->j;
	/* Not 0, whatever the entry says: that would be a new flow. */
	fl_judge(skb, c, by_pod == from_pod ? c->p.dport : c->p.sport, flags | FL_CT_REPLACING, s);
	if (j->reason == FL_REASON_NO_POLICY) {
		/* Not the flow's fault: it is judged when there is a policy. */
		note(c, j->identity, 0, dir, FL_VERDICT_DENY, FL_EVENT_REEVALUATED);
		return j->reason;
	}
	if (j->verdict == FL_VERDICT_AUDIT_DENY)
		note(c, j->identity, j->rule_id, dir, j->verdict, FL_EVENT_REEVALUATED);
	judged_entry(c, j, by_pod, flags & FL_CT_VIA_TUNNEL, &s->fresh);
	r = flow_verdict(c, &s->fresh);
	/* A packet that isn't the flow's must not keep it alive or end it. */
	if (r == FL_REASON_PLAINTEXT)
		s->fresh.last_seen = seen;
	else if (!(s->fresh.flags & FL_CT_DENIED))
		s->fresh.flags |= ct_lessons(s->fresh.flags, &c->p, from_pod);
	ct_replace(c->p.family, k, e, &s->fresh);
	return r;
}

/* A packet of a flow whose verdict holds. */
static __always_inline enum reason continue_flow(struct pod_ctx *c, const union ct_key *k, struct ct_entry *e)
{
	enum reason r = flow_verdict(c, e);

	if (r == FL_REASON_PLAINTEXT)
		return r;
	if (e->flags & FL_CT_DENIED)
		e->last_seen = c->now;
	else
		ct_touch(e, &c->p, k, ctx_from_pod(c), c->now);
	return r;
}

FL_GLOBAL int fl_flow_verdict(struct __sk_buff *skb, struct pod_ctx *c)
{
	struct denied_slot denied = {};
	union ct_key k = {};
	struct ct_entry *e;
	enum reason r;

	if (!c)
		return FL_REASON_MALFORMED;
	c->address_epoch = address_epoch(ctx_peer_addr(c));
	/* A SYN is more likely denied than part of a flow; anything else is
	 * more likely part of one. */
	if (is_syn(&c->p)) {
		denied_find(c, &denied);
		r = denied_before(c, &denied);
		if (r != FL_REASON_NONE)
			return r;
	}
	ct_key_of(&c->p, ctx_from_pod(c), &k);
	e = flow_find(c, &k);
	if (!e) {
		icmp_unasked(&c->p);
		if (!is_syn(&c->p)) {
			denied_find(c, &denied);
			r = denied_before(c, &denied);
			if (r != FL_REASON_NONE)
				return r;
		}
		return open_flow(skb, c, &k, &denied);
	}
	if (client_may_change(c, e))
		return rejudge(skb, c, &k, e);
	if (!verdict_is_current(c, e)) {
		enum direction dir = e->flags & FL_CT_BY_POD ? FL_DIR_EGRESS : FL_DIR_INGRESS;
		__u32 was = e->epoch;

		if (!verdict_still_holds(c, e, dir))
			return rejudge(skb, c, &k, e);
		ct_renew(c->p.family, &k, e, was, c->epoch);
	}
	return continue_flow(c, &k, e);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* From a packet to a verdict about its flow, and whether a verdict still holds. */
#ifndef FAIRLEAD_JUDGE_H
#define FAIRLEAD_JUDGE_H

#include "policy.h"

#include "client.h"
#include "conntrack.h"
#include "context.h"
#include "ipcache.h"
#include "leads.h"

/* What is thought of a flow, apart from its state. */
struct judgement {
	struct remote remote; /* how the peer's address is reached */
	struct decision policy; /* all zero when no policy was asked */
	__u32 identity; /* the peer's; of a translated flow, the client's */
	__u32 client_epoch; /* of a translated flow, of the client's address */
	__u32 rule_id;
	__u16 client; /* and the index of that epoch */
	enum verdict verdict;
	enum reason reason; /* why it passes or is dropped */
	__u8 by_policy;
	__u8 translated;
	__u8 by_service;
	__u8 pad;
};

/* fl_scratch, while a flow is judged. */
struct judging {
	struct judgement j;
	struct policy_query q;
	struct ct_entry fresh; /* the flow's new entry */
	struct client client;
	struct leads leads;
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

static __always_inline void query_fill(struct policy_query *q, const struct pod_ctx *c, enum direction dir,
				       __u16 dport, __u32 peer, const __u8 *addr)
{
	*q = (struct policy_query){
		.subject = c->subject,
		.peer = peer,
		.epoch = c->epoch,
		.dport = dport,
		.proto = c->p.proto,
		.family = c->p.family,
		.dir = dir,
	};
	__builtin_memcpy(q->addr, addr, 16);
}

static __always_inline void judged_by_policy(struct judgement *j, enum reason allowed)
{
	j->by_policy = true;
	j->rule_id = j->policy.rule_id;
	j->verdict = j->policy.verdict;
	j->reason = j->verdict == FL_VERDICT_ALLOW ? allowed :
		    j->verdict == FL_VERDICT_DENY  ? j->policy.reason :
						     FL_REASON_AUDITED;
}

/* Asks the policy of the pod about whoever has addr. */
static __always_inline void judge_by_policy(const struct pod_ctx *c, enum direction dir, __u16 dport,
					    const __u8 *addr, struct judging *s)
{
	query_fill(&s->q, c, dir, dport, s->j.identity, addr);
	fl_policy_decide(&s->q, &s->j.policy, &s->leads.scan);
	judged_by_policy(&s->j, FL_REASON_FORWARDED);
}

/* Asks it about all backends of a service, which may be unknown. A running TCP
 * connection goes to one of them for good, whatever becomes of the others and of
 * the service. */
static __always_inline void judge_by_service(struct __sk_buff *skb, const struct pod_ctx *c, __u16 dport,
					     bool running, struct judging *s)
{
	query_fill(&s->leads.q, c, FL_DIR_EGRESS, dport, FL_IDENTITY_UNKNOWN, ctx_peer_addr(c));
	leads_begin(&s->leads);
	if (running && c->p.proto == IPPROTO_TCP && fl_chosen_find(skb, c, &s->leads.q)) {
		fl_leads_chosen(&s->leads);
	} else {
		if (s->leads.host_port) {
			s->leads.q.peer = FL_IDENTITY_HOST;
			leads_judge_host(&s->leads);
			query_fill(&s->leads.q, c, FL_DIR_EGRESS, dport, FL_IDENTITY_UNKNOWN, ctx_peer_addr(c));
		}
		if (s->leads.service || !s->leads.host_port)
			leads_judge(&s->leads);
	}
	s->j.policy = s->leads.worst;
	s->j.by_service = true;
	judged_by_policy(&s->j, FL_REASON_SERVICE);
}

/* Asks it about a group of receivers. The node is one of them for what it listens
 * to, which nobody here knows: both it and the group must be allowed. */
static __always_inline void judge_group(const struct pod_ctx *c, __u16 dport, struct judging *s)
{
	query_fill(&s->leads.q, c, FL_DIR_EGRESS, dport, s->j.identity, ctx_peer_addr(c));
	leads_begin(&s->leads);
	fl_leads_group(&s->leads);
	s->j.policy = s->leads.worst;
	s->j.by_service = true; /* judged by more than one */
	judged_by_policy(&s->j, FL_REASON_FORWARDED);
}

static __always_inline void judge_denied(struct judgement *j, enum reason reason)
{
	j->verdict = FL_VERDICT_DENY;
	j->reason = reason;
}

/* Judges a flow to the pod whose source address is this node's, but which the
 * node only passed on: by the client that opened it. A flow that runs already
 * has shown which way its client's packets come. */
static __always_inline void judge_client(struct __sk_buff *skb, const struct pod_ctx *c, __u32 dport,
					 bool running, struct judging *s)
{
	struct judgement *j = &s->j;
	struct remote r = {};

	j->translated = true;
	j->client_epoch = address_epoch_at(j->client);
	__builtin_memset(&s->client, 0, sizeof(s->client));
	if (!fl_client_find(skb, c, &s->client))
		goto unknown;
	j->client = address_epoch_index(s->client.addr);
	j->client_epoch = address_epoch_at(j->client);
	remote_lookup(c->p.family, s->client.addr, &r);
	j->identity = r.identity;
	if (r.flags & FL_REMOTE_HOST) {
		if (!skb->ingress_ifindex) {
			j->reason = FL_REASON_HOST;
			return;
		}
		/* What the node sends comes from no interface: somebody took its address. */
		__builtin_memset(&s->client, 0, sizeof(s->client));
		goto unknown;
	}
	/* A pod may always reach itself, through a service's address too. */
	if (addr_equal(c->p.family, s->client.addr, ctx_from_pod(c) ? c->p.saddr : c->p.daddr)) {
		j->reason = FL_REASON_FORWARDED;
		return;
	}
	if (r.flags & FL_REMOTE_REQUIRE_TUNNEL && !running && !c->over_tunnel)
		return judge_denied(j, FL_REASON_PLAINTEXT);
	if (r.identity == FL_IDENTITY_UNKNOWN && !(r.flags & FL_REMOTE_UNVOUCHED))
		return judge_denied(j, FL_REASON_UNKNOWN_SOURCE);
	goto judge;
unknown:
	j->identity = FL_IDENTITY_UNKNOWN;
judge:
	judge_by_policy(c, FL_DIR_INGRESS, dport, s->client.addr, s);
}

/* Judges the flow by who opened it: dir is the direction of its first packet,
 * dport the port that packet went to, and flags are those of its entry (0: it is
 * new). The judgement is all zero before. */
FL_GLOBAL int fl_judge(struct __sk_buff *skb, const struct pod_ctx *c, __u32 dport, __u32 flags,
		       struct judging *s)
{
	enum direction dir;
	struct judgement *j;

	if (!c || !s)
		return 0;
	dir = flags ? (flags & FL_CT_BY_POD ? FL_DIR_EGRESS : FL_DIR_INGRESS) : c->dir;
	j = &s->j;
	j->verdict = FL_VERDICT_ALLOW;
	remote_lookup(c->p.family, ctx_peer_addr(c), &j->remote);
	if (c->p.family == AF_INET6 && addr_is_link_local(ctx_peer_addr(c)) && !(j->remote.flags & FL_REMOTE_HOST)) {
		/* A pod's or the node's: nobody vouches for either. */
		j->remote.identity = FL_IDENTITY_UNKNOWN;
		j->remote.flags |= FL_REMOTE_UNVOUCHED;
	}
	j->identity = j->remote.identity;
	/* With route_localnet, which kube-proxy sets, these would reach what listens on
	 * the node's loopback only. */
	if (c->p.family == AF_INET && ctx_peer_addr(c)[0] == 127)
		return judge_denied(j, FL_REASON_UNKNOWN_DESTINATION), 0;

	if (dir == FL_DIR_EGRESS) {
		if (fl_leads_find(c, dport, &j->remote, &s->leads) || j->remote.flags & FL_REMOTE_SERVICE) {
			judge_by_service(skb, c, dport, flags, s);
			return 0;
		}
	}
	/* The node may always talk to its pods (kubelet probes): it owns them. They may
	 * talk to it unless a rule names it. */
	if (j->remote.flags & FL_REMOTE_HOST && dir == FL_DIR_INGRESS) {
		j->reason = FL_REASON_HOST;
		if (flags ? flags & FL_CT_TRANSLATED : c->forwarded)
			judge_client(skb, c, dport, flags, s);
		return 0;
	}
	/* Inside a cluster's range, but no entry for this address. */
	if (j->identity == FL_IDENTITY_UNKNOWN && !(j->remote.flags & FL_REMOTE_UNVOUCHED)) {
		judge_denied(j, dir == FL_DIR_EGRESS ? FL_REASON_UNKNOWN_DESTINATION :
						       FL_REASON_UNKNOWN_SOURCE);
		return 0;
	}
	if (dir == FL_DIR_EGRESS && addr_is_group(c->p.family, ctx_peer_addr(c))) {
		judge_group(c, dport, s);
		return 0;
	}
	judge_by_policy(c, dir, dport, ctx_peer_addr(c), s);
	if (j->remote.flags & FL_REMOTE_HOST) {
		j->by_service = true; /* one may come to the port */
		if (j->verdict == FL_VERDICT_ALLOW)
			j->reason = FL_REASON_HOST;
	}
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

/* What a service leads to may be others soon, which no epoch says: flows that were
 * judged by it are judged again about every four seconds. */
static __always_inline __u32 service_epoch(const struct pod_ctx *c)
{
	return c->now >> 2;
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
	if (j->translated)
		flags |= FL_CT_TRANSLATED;
	if (j->by_service)
		flags |= FL_CT_BY_SERVICE;
	*e = (struct ct_entry){
		.last_seen = c->now,
		.flags = flags,
		.epoch = c->epoch,
		.address_epoch = c->address_epoch + j->client_epoch + (j->by_service ? service_epoch(c) : 0),
		.subject = c->subject,
		.peer = j->remote.peer,
		.reason = j->reason,
		.subject_flags = j->policy.subject_flags,
		.identity = j->identity,
		.rule_id = j->rule_id,
		.group = j->policy.group,
		.class = j->policy.class,
		.block = j->policy.block,
		.block_class = j->policy.block_class,
		.client = j->client,
	};
}

/* The addresses of the flow have the holders that they had. */
static __always_inline bool addresses_are_current(const struct pod_ctx *c, const struct ct_entry *e)
{
	__u32 epoch = c->address_epoch;

	if (e->flags & FL_CT_TRANSLATED)
		epoch += address_epoch_at(e->client);
	if (e->flags & FL_CT_BY_SERVICE)
		epoch += service_epoch(c);
	return e->address_epoch == epoch;
}

/* Nothing happened since the flow was judged. */
static __always_inline bool verdict_is_current(const struct pod_ctx *c, const struct ct_entry *e)
{
	return e->epoch == c->epoch && e->subject == c->subject && addresses_are_current(c, e);
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

	if (e->subject != c->subject || !addresses_are_current(c, e) ||
	    epoch_before(e->epoch, c->full_epoch) || e->flags & FL_CT_BY_SERVICE)
		return false;
	if (!(e->flags & FL_CT_BY_POLICY)) /* by the pod: to the node, judged by a version that didn't ask */
		return !(e->flags & FL_CT_BY_POD);
	s = subject_find(c->subject, dir, c->epoch);
	return s && s->group == e->group && s->flags == e->subject_flags &&
	       classes_still_hold(e) &&
	       (!(e->flags & FL_CT_BY_DEFAULT) || s->default_rule == e->rule_id);
}

#endif

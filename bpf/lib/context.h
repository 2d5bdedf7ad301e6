/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What a pod hook knows about one packet, and what is reported of it. */
#ifndef FAIRLEAD_CONTEXT_H
#define FAIRLEAD_CONTEXT_H

#include "epoch.h"

#include "clock.h"
#include "events.h"
#include "metrics.h"

struct pod_ctx {
	struct packet p;
	__u32 subject; /* the pod's identity */
	__u32 epoch; /* fl_config's, read once */
	__u32 full_epoch;
	__u32 address_epoch; /* of the peer's address */
	__u32 events_per_tick;
	__u32 now;
	enum hook hook;
	enum direction dir; /* which way the packet goes */
	__u8 from_tunnel;
	/* To the pod, and this node received it: whoever sent it, it was not the
	 * node itself, not even under the node's own address. */
	__u8 forwarded;
	__u8 over_tunnel; /* forwarded, and it came out of the tunnel device */

	/* The outcome, for whoever forwards it. */
	__u8 via_tunnel;
	__u16 peer;

	/* And for the event, which is sent when noted is set. */
	__u8 noted;
	__u8 folded; /* an event of this tick stands for this packet too */
	__u32 stands_for; /* earlier packets, folded until now */
	__u32 peer_identity;
	__u32 rule_id;
	enum direction judged; /* direction of the policy that decided; NONE: none did */
	enum verdict verdict;
	__u8 event_flags;
	__u8 pad[7];
};

static __always_inline void ctx_begin(struct pod_ctx *c, enum hook hook, enum direction dir,
				      const struct config *cfg)
{
	struct epochs epochs = epochs_read(cfg);

	__builtin_memset(c, 0, sizeof(*c));
	c->hook = hook;
	c->dir = dir;
	c->epoch = epochs.policy;
	c->full_epoch = epochs.full;
	c->events_per_tick = cfg->events_per_tick;
	c->now = now_ticks();
}

static __always_inline bool ctx_from_pod(const struct pod_ctx *c)
{
	return c->dir == FL_DIR_EGRESS;
}

static __always_inline const __u8 *ctx_peer_addr(const struct pod_ctx *c)
{
	return ctx_from_pod(c) ? c->p.daddr : c->p.saddr;
}

/* Notes what the event of this packet will say. */
static __always_inline void note(struct pod_ctx *c, __u32 peer_identity, __u32 rule_id,
				 enum direction judged, enum verdict verdict, __u8 flags)
{
	c->noted = true;
	c->peer_identity = peer_identity;
	c->rule_id = rule_id;
	c->judged = judged;
	c->verdict = verdict;
	c->event_flags = flags;
}

/* Counts the rule and sends the event. */
FL_GLOBAL int fl_report_send(struct __sk_buff *skb, const struct pod_ctx *c, __u32 reason)
{
	bool dropped = reason > FL_REASON_FIRST_DROP;
	struct report r = {};

	if (!c)
		return 0;
	r.subject = c->subject;
	r.peer = c->peer_identity;
	/* A rule that allowed isn't to blame for what stopped it later. */
	r.rule_id = dropped && c->verdict != FL_VERDICT_DENY ? 0 : c->rule_id;
	r.epoch = c->epoch;
	r.now = c->now;
	r.events_per_tick = c->events_per_tick;
	r.hook = c->hook;
	r.packet_dir = c->dir;
	r.dir = c->judged ? c->judged : c->dir;
	r.verdict = dropped ? FL_VERDICT_DENY : c->verdict;
	r.reason = reason;
	r.flags = c->event_flags | (c->from_tunnel ? FL_EVENT_VIA_TUNNEL : 0);
	r.stands_for = c->stands_for;
	if (r.rule_id)
		count_rule(r.rule_id, r.dir, r.verdict, skb->len);
	if (!c->folded)
		fl_event_send(skb, &c->p, &r);
	return 0;
}

/* Reports what somebody wants to know, when the packet's fate is known. */
static __always_inline void ctx_report(struct __sk_buff *skb, const struct pod_ctx *c, enum reason reason)
{
	if (c->noted || reason > FL_REASON_FIRST_DROP)
		fl_report_send(skb, c, reason);
}

#endif

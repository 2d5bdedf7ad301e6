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
	__u8 pad;
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

/* Counts the rule and sends the event, when the packet's fate is known. */
static __always_inline void ctx_report(struct __sk_buff *skb, const struct pod_ctx *c, enum reason reason)
{
	bool dropped = reason > FL_REASON_FIRST_DROP;
	/* A rule that allowed isn't to blame for what stopped it later. */
	bool blameless = dropped && c->verdict != FL_VERDICT_DENY;
	struct report r = {
		.subject = c->subject,
		.peer = c->peer_identity,
		.rule_id = blameless ? 0 : c->rule_id,
		.epoch = c->epoch,
		.now = c->now,
		.events_per_tick = c->events_per_tick,
		.hook = c->hook,
		.packet_dir = c->dir,
		.dir = c->judged ? c->judged : c->dir,
		.verdict = dropped ? FL_VERDICT_DENY : c->verdict,
		.reason = reason,
		.flags = c->event_flags | (c->from_tunnel ? FL_EVENT_VIA_TUNNEL : 0),
		.stands_for = c->stands_for,
	};

	if (!c->noted && !dropped)
		return;
	if (r.rule_id)
		count_rule(r.rule_id, r.dir, r.verdict, skb->len);
	if (!c->folded)
		fl_event_send(skb, &c->p, &r);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* May this packet of a pod pass? Known flows answer themselves; new ones, and
 * known ones after policy changed, are judged. Used by both pod hooks. */
#ifndef FAIRLEAD_FLOW_H
#define FAIRLEAD_FLOW_H

#include "policy.h"

#include "conntrack.h"
#include "denied.h"
#include "events.h"
#include "fragments.h"
#include "ipcache.h"
#include "metrics.h"

/* One packet's walk through a pod hook. */
struct walk {
	struct packet p;
	__u32 subject; /* the pod's identity */
	__u32 epoch;
	__u32 events_per_tick;
	__u32 now;
	enum hook hook;
	enum direction dir; /* which way the packet goes */
	__u8 from_tunnel;

	/* What came out, for whoever forwards it. */
	__u8 via_tunnel;
	__u16 peer;

	/* And for who wants to know: an event is sent when tell is set. */
	__u8 tell;
	__u8 folded; /* an event of this tick stands for this packet too */
	__u32 stands_for; /* earlier packets, folded until now */
	__u32 peer_identity;
	__u32 rule_id;
	enum direction judged; /* whose policy spoke; NONE: none did */
	enum verdict verdict;
	__u8 event_flags;
	__u8 pad;
};

static __always_inline void walk_begin(struct walk *w, enum hook hook, enum direction dir,
				       const struct config *cfg)
{
	__builtin_memset(w, 0, sizeof(*w));
	w->hook = hook;
	w->dir = dir;
	w->epoch = cfg->policy_epoch;
	w->events_per_tick = cfg->events_per_tick;
	w->now = now_ticks();
}

static __always_inline bool walk_from_pod(const struct walk *w)
{
	return w->dir == FL_DIR_EGRESS;
}

/* What is thought of a flow, apart from its state. */
struct judgement {
	struct remote remote;
	__u32 rule_id;
	enum verdict verdict;
	enum reason reason; /* why it passes or is dropped */
};

/* Judges the flow by who opened it: dir is the direction of its first packet,
 * dport the port that packet went to. */
static __always_inline void judge(const struct walk *w, const __u8 *peer_addr, enum direction dir,
				  __u16 dport, struct judgement *j)
{
	struct decision d;

	j->rule_id = 0;
	j->verdict = FL_VERDICT_ALLOW;
	remote_lookup(w->p.family, peer_addr, &j->remote);

	/* The node may always talk to its pods (kubelet probes) and they to it:
	 * NetworkPolicy says so, and it owns them anyway. */
	if (j->remote.flags & FL_REMOTE_HOST) {
		j->reason = FL_REASON_HOST;
		return;
	}
	/* A service address that was not translated at the socket belongs to
	 * kube-proxy; the real destination meets its own policy at arrival. */
	if (dir == FL_DIR_EGRESS && (j->remote.flags & FL_REMOTE_SERVICE)) {
		j->reason = FL_REASON_SERVICE;
		return;
	}
	/* Inside a cluster's range, but nobody vouches for this address. */
	if (j->remote.identity == FL_IDENTITY_UNKNOWN) {
		j->verdict = FL_VERDICT_DENY;
		j->reason = dir == FL_DIR_EGRESS ? FL_REASON_UNKNOWN_DESTINATION :
						   FL_REASON_UNKNOWN_SOURCE;
		return;
	}
	d = policy_decide(w->subject, j->remote.identity, dir, w->p.proto, dport);
	j->rule_id = d.rule_id;
	j->verdict = d.verdict;
	j->reason = d.verdict == FL_VERDICT_ALLOW ? FL_REASON_FORWARDED :
		    d.verdict == FL_VERDICT_DENY  ? d.reason :
						    FL_REASON_AUDITED;
}

/* Notes what the event of this packet will say. */
static __always_inline void note(struct walk *w, __u32 peer_identity, __u32 rule_id,
				 enum direction judged, enum verdict verdict, __u8 flags)
{
	w->tell = true;
	w->peer_identity = peer_identity;
	w->rule_id = rule_id;
	w->judged = judged;
	w->verdict = verdict;
	w->event_flags = flags;
}

/* Counts the rule and sends the event, at the end of the walk. */
static __always_inline void tell(struct __sk_buff *skb, const struct walk *w, enum reason reason)
{
	bool dropped = reason > FL_REASON_FIRST_DROP;
	/* A rule that allowed isn't to blame for what stopped it later. */
	bool blameless = dropped && w->verdict != FL_VERDICT_DENY;
	struct report r = {
		.subject = w->subject,
		.peer = w->peer_identity,
		.rule_id = blameless ? 0 : w->rule_id,
		.epoch = w->epoch,
		.now = w->now,
		.events_per_tick = w->events_per_tick,
		.hook = w->hook,
		.packet_dir = w->dir,
		.dir = w->judged ? w->judged : w->dir,
		.verdict = dropped ? FL_VERDICT_DENY : w->verdict,
		.reason = reason,
		.flags = w->event_flags | (w->from_tunnel ? FL_EVENT_VIA_TUNNEL : 0),
		.stands_for = w->stands_for,
	};

	if (!w->tell && !dropped)
		return;
	if (r.rule_id)
		count_rule(r.rule_id, r.dir, r.verdict, skb->len);
	if (!w->folded)
		fl_event_send(skb, &w->p, &r);
}

/* Where packets of a flow go, from what is known about the other side. A flow
 * opened by the pod follows the address; the answers to a flow opened by the
 * peer go back the way it came. */
static __always_inline __u32 tunnel_flags(const struct judgement *j, bool by_pod, bool came_by_tunnel)
{
	__u32 flags = 0;

	if (by_pod ? (j->remote.flags & FL_REMOTE_TUNNEL) : came_by_tunnel)
		flags |= FL_CT_VIA_TUNNEL;
	if (j->remote.flags & FL_REMOTE_REQUIRE_TUNNEL)
		flags |= FL_CT_REQUIRE_TUNNEL | FL_CT_VIA_TUNNEL;
	return flags;
}

/* Policy or the pod's identity changed since this flow was judged. Whichever
 * side the packet comes from, the flow is judged as it was opened: that is in
 * the key. A flow that is no longer allowed stays known, as denied, so that a
 * late answer can't open it again from the other side. */
static __always_inline void rejudge(struct walk *w, struct ct_entry *e)
{
	bool by_pod = e->flags & FL_CT_BY_POD;
	enum direction dir = by_pod ? FL_DIR_EGRESS : FL_DIR_INGRESS;
	bool original = by_pod == walk_from_pod(w);
	__u32 keep = FL_CT_BY_POD | FL_CT_REPLIED | FL_CT_FIN_POD | FL_CT_FIN_PEER | FL_CT_RST;
	struct judgement j;
	__u32 flags;

	judge(w, walk_from_pod(w) ? w->p.daddr : w->p.saddr, dir,
	      original ? w->p.dport : w->p.sport, &j);
	flags = (e->flags & keep) | tunnel_flags(&j, by_pod, e->flags & FL_CT_VIA_TUNNEL);
	if (j.verdict == FL_VERDICT_DENY)
		flags |= FL_CT_DENIED;
	if (j.verdict == FL_VERDICT_AUDIT_DENY) {
		flags |= FL_CT_AUDIT;
		note(w, j.remote.identity, j.rule_id, dir, j.verdict, FL_EVENT_REEVALUATED);
	}
	e->subject = w->subject;
	e->identity = j.remote.identity;
	e->rule_id = j.rule_id;
	e->peer = j.remote.peer;
	e->reason = j.reason;
	e->flags = flags;
	e->epoch = w->epoch;
}

/* Remembers a denial until the next tick. */
static __always_inline void remember_denied(struct walk *w, const struct judgement *j,
					    const struct denied_key *k, struct denied *known)
{
	struct denied d = {
		.tick = w->now,
		.epoch = w->epoch,
		.identity = j->remote.identity,
		.rule_id = j->rule_id,
		.reason = j->reason,
		.family = w->p.family,
	};

	if (j->reason != FL_REASON_POLICY_DENIED && j->reason != FL_REASON_DEFAULT_DENIED)
		return;
	if (known) {
		w->stands_for = known->folded;
		*known = d;
		return;
	}
	bpf_map_update_elem(&fl_denied, k, &d, BPF_ANY);
}

/* Was this very thing denied in this tick? */
static __always_inline enum reason denied_before(struct walk *w, const struct denied_key *k,
						 struct denied **known)
{
	struct denied *d = denied_find(k);

	*known = d;
	if (!d || !denied_still(d, &w->p, w->now, w->epoch))
		return FL_REASON_NONE;
	d->folded++;
	w->folded = true;
	note(w, d->identity, d->rule_id, w->dir, FL_VERDICT_DENY, FL_EVENT_NEW);
	return d->reason;
}

/* A packet of a flow that nobody knows. */
static __always_inline enum reason open_flow(struct walk *w, const union ct_key *k,
					     const struct denied_key *dk, struct denied *denied)
{
	bool from_pod = walk_from_pod(w);
	struct ct_entry e = {};
	struct judgement j;

	judge(w, from_pod ? w->p.daddr : w->p.saddr, w->dir, w->p.dport, &j);
	/* The address says "believe me only from the tunnel": in the clear it
	 * is either forged or leaked. */
	if (!from_pod && !w->from_tunnel && (j.remote.flags & FL_REMOTE_REQUIRE_TUNNEL)) {
		j.verdict = FL_VERDICT_DENY;
		j.reason = FL_REASON_PLAINTEXT;
		j.rule_id = 0;
	}
	/* Node and service traffic is not policy's: no event for each probe. */
	if (j.reason != FL_REASON_HOST && j.reason != FL_REASON_SERVICE)
		note(w, j.remote.identity, j.rule_id, w->dir, j.verdict, FL_EVENT_NEW);
	if (j.verdict == FL_VERDICT_DENY) {
		remember_denied(w, &j, dk, denied);
		return j.reason;
	}

	e.last_seen = w->now;
	e.epoch = w->epoch;
	e.subject = w->subject;
	e.identity = j.remote.identity;
	e.rule_id = j.rule_id;
	e.flags = (from_pod ? FL_CT_BY_POD : 0) | tunnel_flags(&j, from_pod, w->from_tunnel);
	if (j.verdict == FL_VERDICT_AUDIT_DENY)
		e.flags |= FL_CT_AUDIT;
	if (w->p.tcp_flags & TCP_RST)
		e.flags |= FL_CT_RST;
	e.peer = j.remote.peer;
	e.reason = j.reason;
	e.tx = from_pod;
	e.rx = !from_pod;
	/* Without an entry the answer would be judged as a flow of its own. */
	if (ct_store(w->p.family, k, &e))
		return FL_REASON_FLOW_TABLE;
	w->via_tunnel = !!(e.flags & FL_CT_VIA_TUNNEL);
	w->peer = e.peer;
	return j.reason;
}

static __always_inline bool is_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* The running flow this packet belongs to, if any. */
static __always_inline struct ct_entry *flow_find(struct walk *w, const union ct_key *k)
{
	struct ct_entry *e = ct_find(w->p.family, k);

	if (!e || ct_expired(e, w->p.proto, w->now))
		return NULL;
	/* A SYN that doesn't continue it: the other side opens a connection
	 * over the same pair of ports, or a closed one is opened anew. That
	 * must face policy itself, or an old flow would be a door. */
	if (is_syn(&w->p) && (!!(e->flags & FL_CT_BY_POD) != walk_from_pod(w) || ct_closing(e->flags)))
		return NULL;
	return e;
}

FL_GLOBAL int fl_flow_verdict(struct walk *w)
{
	struct denied *denied = NULL;
	struct denied_key dk = {};
	bool from_pod, by_pod;
	union ct_key k = {};
	struct ct_entry *e;
	enum reason r;

	if (!w)
		return FL_REASON_MALFORMED;
	from_pod = walk_from_pod(w);
	/* A SYN is more likely denied than part of a flow; anything else is
	 * more likely part of one. */
	if (is_syn(&w->p)) {
		denied_key_of(&w->p, w->subject, w->dir, &dk);
		r = denied_before(w, &dk, &denied);
		if (r != FL_REASON_NONE)
			return r;
	}
	ct_key_of(&w->p, from_pod, &k);
	e = flow_find(w, &k);
	if (!e) {
		if (!is_syn(&w->p)) {
			denied_key_of(&w->p, w->subject, w->dir, &dk);
			r = denied_before(w, &dk, &denied);
			if (r != FL_REASON_NONE)
				return r;
		}
		return open_flow(w, &k, &dk, denied);
	}
	by_pod = e->flags & FL_CT_BY_POD;

	if (e->epoch != w->epoch || e->subject != w->subject)
		rejudge(w, e);
	if (e->flags & FL_CT_DENIED) {
		e->last_seen = w->now;
		note(w, e->identity, e->rule_id, by_pod ? FL_DIR_EGRESS : FL_DIR_INGRESS,
		     FL_VERDICT_DENY, FL_EVENT_REEVALUATED);
		return e->reason;
	}
	w->peer_identity = e->identity;
	if (!from_pod && !w->from_tunnel && (e->flags & FL_CT_REQUIRE_TUNNEL))
		return FL_REASON_PLAINTEXT;
	ct_touch(e, &w->p, from_pod, w->now);
	w->via_tunnel = !!(e->flags & FL_CT_VIA_TUNNEL);
	w->peer = e->peer;
	return e->reason;
}

#endif

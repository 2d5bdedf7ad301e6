/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Flows as the pod sees them: one entry, one lookup, both directions. This
 * file only keeps state; flow.h judges. */
#ifndef FAIRLEAD_CONNTRACK_H
#define FAIRLEAD_CONNTRACK_H

#include "clock.h"
#include "fairlead/maps.h"
#include "packet.h"

#define FL_TCP_ESTABLISHED FL_TICKS(6 * 3600)
#define FL_TCP_OPENING FL_TICKS(60)
#define FL_TCP_CLOSING FL_TICKS(10)
#define FL_UDP_IDLE FL_TICKS(90)
#define FL_OTHER_IDLE FL_TICKS(30)
/* Longer than TCP's longest retransmission interval: a peer that keeps trying
 * must keep meeting the denial, or its late packet would look like a new flow
 * from the other side. */
#define FL_DENIED_IDLE FL_TICKS(300)

union ct_key {
	struct ct4_key v4;
	struct ct6_key v6;
};

/* Which way the questions of an ICMP packet's flow go. */
static __always_inline enum direction icmp_asks(const struct packet *p, bool from_pod)
{
	if (!p->icmp_role)
		return FL_DIR_NONE;
	return from_pod == (p->icmp_role != FL_ICMP_ANSWERS) ? FL_DIR_EGRESS : FL_DIR_INGRESS;
}

static __always_inline void ct_key_of(const struct packet *p, bool from_pod, union ct_key *k)
{
	const __u8 *pod = from_pod ? p->saddr : p->daddr;
	const __u8 *peer = from_pod ? p->daddr : p->saddr;
	__u16 pod_port = from_pod ? p->sport : p->dport;
	__u16 peer_port = from_pod ? p->dport : p->sport;

	if (p->family == AF_INET) {
		*(__u32 *)k->v4.pod = *(const __u32 *)pod;
		*(__u32 *)k->v4.peer = *(const __u32 *)peer;
		k->v4.pod_port = pod_port;
		k->v4.peer_port = peer_port;
		*(__u32 *)&k->v4.proto = p->proto; /* and the padding */
		k->v4.asks = icmp_asks(p, from_pod);
		return;
	}
	__builtin_memcpy(k->v6.pod, pod, 16);
	__builtin_memcpy(k->v6.peer, peer, 16);
	k->v6.pod_port = pod_port;
	k->v6.peer_port = peer_port;
	*(__u32 *)&k->v6.proto = p->proto;
	k->v6.asks = icmp_asks(p, from_pod);
}

static __always_inline struct ct_entry *ct_find(__u8 family, const union ct_key *k)
{
	if (family == AF_INET)
		return bpf_map_lookup_elem(&fl_ct4, &k->v4);
	return bpf_map_lookup_elem(&fl_ct6, &k->v6);
}

static __always_inline long ct_store(__u8 family, const union ct_key *k, const struct ct_entry *e)
{
	if (family == AF_INET)
		return bpf_map_update_elem(&fl_ct4, &k->v4, e, BPF_ANY);
	return bpf_map_update_elem(&fl_ct6, &k->v6, e, BPF_ANY);
}

static __always_inline bool ct_closing(__u32 flags)
{
	__u32 both = FL_CT_FIN_POD | FL_CT_FIN_PEER;

	return (flags & (FL_CT_RST_POD | FL_CT_RST_PEER)) || (flags & both) == both;
}

static __always_inline __u32 ct_lifetime(__u8 proto, __u32 flags)
{
	if (flags & FL_CT_DENIED)
		return FL_DENIED_IDLE;
	if (proto == IPPROTO_TCP) {
		if (ct_closing(flags))
			return FL_TCP_CLOSING;
		return flags & FL_CT_REPLIED ? FL_TCP_ESTABLISHED : FL_TCP_OPENING;
	}
	return has_ports(proto) ? FL_UDP_IDLE : FL_OTHER_IDLE;
}

static __always_inline bool ct_expired(const struct ct_entry *e, __u8 proto, __u32 now)
{
	/* Signed: another CPU may have written a tick we don't see yet. */
	return (__s32)(now - e->last_seen) > (__s32)ct_lifetime(proto, e->flags);
}

/* What a flow's packets taught us about it, as opposed to what policy says. */
#define FL_CT_LEARNED (FL_CT_REPLIED | FL_CT_FIN_POD | FL_CT_FIN_PEER | FL_CT_RST_POD | FL_CT_RST_PEER)

static __always_inline __u32 ct_lessons(__u32 flags, const struct packet *p, bool from_pod)
{
	bool by_pod = flags & FL_CT_BY_POD;
	__u32 learned = by_pod == from_pod ? 0 : FL_CT_REPLIED;

	if (p->tcp_flags & TCP_FIN)
		learned |= from_pod ? FL_CT_FIN_POD : FL_CT_FIN_PEER;
	if (p->tcp_flags & TCP_RST)
		learned |= from_pod ? FL_CT_RST_POD : FL_CT_RST_PEER;
	return learned;
}

/* Adds to the flow's flags, whatever entry it has by now. */
static __always_inline void ct_learn(__u8 family, const union ct_key *k, __u32 learned)
{
	struct ct_entry *e = ct_find(family, k);

	if (e)
		__sync_fetch_and_or(&e->flags, learned);
}

/* Notes one packet. Writes as little as it can: flows are shared by CPUs. */
static __always_inline void ct_touch(struct ct_entry *e, const struct packet *p,
				     const union ct_key *k, bool from_pod, __u32 now)
{
	__u32 learned = ct_lessons(e->flags, p, from_pod);
	__u32 reset = from_pod ? FL_CT_RST_POD : FL_CT_RST_PEER;

	/* Whoever resets a connection sends nothing more. One that does has not
	 * sent that reset, or its peer did not take it (RFC 5961): somebody guessed
	 * the ports, and must not have the flow forgotten for it. */
	if (e->flags & reset & ~learned)
		__sync_fetch_and_and(&e->flags, ~reset);
	/* Another CPU may have copied the flags and be about to replace e. */
	if ((e->flags & learned) != learned &&
	    (__sync_fetch_and_or(&e->flags, learned) & FL_CT_REPLACING))
		ct_learn(p->family, k, learned);
	if (e->last_seen != now)
		e->last_seen = now;
}

/* Puts a new verdict in the place of the old one, as a whole: the table may give
 * old's memory to another flow at any moment, and must not find our verdict in
 * it. What other CPUs learn meanwhile is carried over: they see REPLACING and
 * learn it again, or we see that they did. */
static __always_inline void ct_replace(__u8 family, const union ct_key *k, struct ct_entry *old,
				       struct ct_entry *fresh)
{
	__u32 had = __sync_fetch_and_or(&old->flags, FL_CT_REPLACING), has;

	/* The memory is another flow's by now: the mark must not stay there. */
	if (ct_find(family, k) != old) {
		if (!(had & FL_CT_REPLACING))
			__sync_fetch_and_and(&old->flags, ~FL_CT_REPLACING);
		ct_learn(family, k, fresh->flags & FL_CT_LEARNED);
		return;
	}
	/* Another CPU is at it, with a verdict as good as ours, or else with
	 * one of an older epoch, which the next packet finds out. It sees what we
	 * leave in the old entry, or has replaced it, and we find the new one. */
	if (had & FL_CT_REPLACING) {
		__sync_fetch_and_or(&old->flags, fresh->flags & FL_CT_LEARNED);
		ct_learn(family, k, fresh->flags & FL_CT_LEARNED);
		return;
	}
	fresh->flags |= had & FL_CT_LEARNED;
	if (ct_store(family, k, fresh)) {
		__sync_fetch_and_and(&old->flags, ~FL_CT_REPLACING);
		return;
	}
	has = *(volatile __u32 *)&old->flags;
	if (has & FL_CT_REPLACING && has & ~had & FL_CT_LEARNED) /* else it is another flow's */
		ct_learn(family, k, has & FL_CT_LEARNED);
}

/* The verdict still holds in another epoch. If old's memory went to another flow
 * meanwhile, that one's epoch is put back: it is then only judged once more. */
static __always_inline void ct_renew(__u8 family, const union ct_key *k, struct ct_entry *e,
				     __u32 was, __u32 epoch)
{
	__sync_val_compare_and_swap(&e->epoch, was, epoch);
	if (ct_find(family, k) != e)
		__sync_val_compare_and_swap(&e->epoch, epoch, was);
}

#endif

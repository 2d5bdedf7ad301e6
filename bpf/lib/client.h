/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who opened a connection whose source this node replaced by an address of its
 * own: kube-proxy does that for NodePorts, load balancers and external
 * addresses, CNIs do it for host ports. The kernel's connection tracking knows.
 *
 * Where tracking doesn't know it (ICMP, SCTP, another translator than netfilter)
 * the client is not known: no allow of somebody matches it, every deny does. */
#ifndef FAIRLEAD_CLIENT_H
#define FAIRLEAD_CLIENT_H

#include "context.h"
#include "tracking.h"

enum opener {
	FL_OPENER_UNKNOWN = 0,
	FL_OPENER_SENDER = 1, /* of this packet */
	FL_OPENER_OTHER = 2,
};

/* Which side opened the connection of a packet, if tracking has seen it. What
 * goes through the tunnel it has not. */
FL_GLOBAL int fl_opener_find(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_ct_opts opts = { .netns_id = -1 };
	struct nf_conn *ct;
	bool turned = false;

	if (!p)
		return FL_OPENER_UNKNOWN;
	opts.l4proto = p->proto;
	ct = track_find(skb, p->saddr, p->sport, p->daddr, p->dport, p->family, &opts);
	if (!ct) { /* translated: known by the packets the other way */
		turned = true;
		ct = track_find(skb, p->daddr, p->dport, p->saddr, p->sport, p->family, &opts);
	}
	if (!ct)
		return FL_OPENER_UNKNOWN;
	bpf_ct_release(ct);
	return (opts.dir == FL_TRACK_REPLY) != turned ? FL_OPENER_OTHER : FL_OPENER_SENDER;
}

/* The connection of what the pod sends to the peer, whichever way this packet goes. */
static __always_inline struct nf_conn *track_from_pod(struct __sk_buff *skb, const struct pod_ctx *c,
						      struct bpf_ct_opts *opts)
{
	if (ctx_from_pod(c))
		return track_find(skb, c->p.saddr, c->p.sport, c->p.daddr, c->p.dport, c->p.family, opts);
	return track_find(skb, c->p.daddr, c->p.dport, c->p.saddr, c->p.sport, c->p.family, opts);
}

struct client {
	__u8 addr[16] __attribute__((aligned(8))); /* IPv4: the first four bytes */
};

/* Finds the address that opened the packet's connection to the pod, as this node
 * saw it come. Tracking knows connections by their packets before translation
 * and by the answers to them, so it is asked for an answer. Returns 0 if the
 * client is not known. */
FL_GLOBAL int fl_client_find(struct __sk_buff *skb, const struct pod_ctx *c, struct client *client)
{
	struct bpf_ct_opts opts = { .netns_id = -1 };
	struct nf_conn *ct;

	if (!c || !client)
		return 0;
	opts.l4proto = c->p.proto;
	ct = track_from_pod(skb, c, &opts);
	if (!ct)
		return 0;
	track_addr(&ct->tuplehash[FL_TRACK_ORIGINAL].tuple.src, c->p.family, client->addr);
	bpf_ct_release(ct);
	return 1;
}

/* Finds the backend that a running connection of the pod to a service goes to,
 * which tracking calls the sender of the answers. Returns 0 if it isn't known. */
FL_GLOBAL int fl_chosen_find(struct __sk_buff *skb, const struct pod_ctx *c, struct policy_query *q)
{
	struct bpf_ct_opts opts = { .netns_id = -1 };
	struct nf_conn *ct;

	if (!c || !q)
		return 0;
	opts.l4proto = c->p.proto;
	ct = track_from_pod(skb, c, &opts);
	if (!ct)
		return 0;
	track_addr(&ct->tuplehash[FL_TRACK_REPLY].tuple.src, c->p.family, q->addr);
	q->dport = bpf_ntohs(ct->tuplehash[FL_TRACK_REPLY].tuple.src.u.all);
	bpf_ct_release(ct);
	/* Not translated here: the service's own address says nothing. */
	return !addr_equal(c->p.family, q->addr, ctx_peer_addr(c));
}

#endif

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

struct client {
	__u8 addr[16] __attribute__((aligned(8))); /* IPv4: the first four bytes */
};

/* Finds the address that opened the packet's connection to the pod, as this node
 * saw it come. Tracking knows connections by their packets before translation
 * and by the answers to them, so it is asked for an answer: from the pod to the
 * peer, whichever way this packet goes. Returns 0 if the client is not known. */
FL_GLOBAL int fl_client_find(struct __sk_buff *skb, const struct pod_ctx *c, struct client *client)
{
	struct bpf_ct_opts opts = { .netns_id = -1 };
	struct nf_conn *ct;
	bool from_pod;
	__u32 *to;

	if (!c || !client)
		return 0;
	opts.l4proto = c->p.proto;
	from_pod = ctx_from_pod(c);
	if (from_pod)
		ct = track_find(skb, c->p.saddr, c->p.sport, c->p.daddr, c->p.dport, c->p.family, &opts);
	else
		ct = track_find(skb, c->p.daddr, c->p.dport, c->p.saddr, c->p.sport, c->p.family, &opts);
	if (!ct)
		return 0;
	to = (__u32 *)client->addr;
	to[0] = ct->tuplehash[0].tuple.src.u3.all[0];
	if (c->p.family == AF_INET6) {
		to[1] = ct->tuplehash[0].tuple.src.u3.all[1];
		to[2] = ct->tuplehash[0].tuple.src.u3.all[2];
		to[3] = ct->tuplehash[0].tuple.src.u3.all[3];
	}
	bpf_ct_release(ct);
	return 1;
}

#endif

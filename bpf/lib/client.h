/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Who opened a connection whose source this node replaced by an address of its
 * own: kube-proxy does that for NodePorts, load balancers and external
 * addresses, CNIs do it for host ports. The kernel's connection tracking knows.
 *
 * kfuncs of 5.18, of TCP and UDP alone. Where the kernel has none, or another
 * translator than netfilter was at work, the client is not known: no allow of
 * somebody matches it, and every deny does. */
#ifndef FAIRLEAD_CLIENT_H
#define FAIRLEAD_CLIENT_H

#include "conntrack.h"
#include "context.h"

struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

/* As much of the kernel's as is read here; offsets come from its BTF. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
union nf_inet_addr {
	__u32 all[4];
};
struct nf_conntrack_man {
	union nf_inet_addr u3;
};
struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
};
struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};
struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2]; /* as opened, and the answers' */
};
#pragma clang attribute pop

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple,
					 __u32 tuple_size, struct bpf_ct_opts *opts,
					 __u32 opts_size) __ksym __weak;
extern void bpf_ct_release(struct nf_conn *ct) __ksym __weak;

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
	struct bpf_sock_tuple t = {};
	union ct_key k = {};
	struct nf_conn *ct;
	__u32 *to;

	if (!c || !client || !bpf_skb_ct_lookup || !bpf_ct_release)
		return 0;
	ct_key_of(&c->p, ctx_from_pod(c), &k);
	opts.l4proto = c->p.proto;
	if (c->p.family == AF_INET) {
		t.ipv4.saddr = *(const __u32 *)k.v4.pod;
		t.ipv4.daddr = *(const __u32 *)k.v4.peer;
		t.ipv4.sport = bpf_htons(k.v4.pod_port);
		t.ipv4.dport = bpf_htons(k.v4.peer_port);
		ct = bpf_skb_ct_lookup(skb, &t, sizeof(t.ipv4), &opts, sizeof(opts));
	} else {
		__builtin_memcpy(t.ipv6.saddr, k.v6.pod, 16);
		__builtin_memcpy(t.ipv6.daddr, k.v6.peer, 16);
		t.ipv6.sport = bpf_htons(k.v6.pod_port);
		t.ipv6.dport = bpf_htons(k.v6.peer_port);
		ct = bpf_skb_ct_lookup(skb, &t, sizeof(t.ipv6), &opts, sizeof(opts));
	}
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

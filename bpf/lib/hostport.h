/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What may reach this node itself out of the tunnel. Its ports are closed to the
 * pods and nodes of other clusters: kubelet, etcd and sshd listen there. Open are
 * answers to what the node asked, and node ports, whose pods have policies of
 * their own and see the client. */
#ifndef FAIRLEAD_HOSTPORT_H
#define FAIRLEAD_HOSTPORT_H

#include "service.h"
#include "tracking.h"

/* Where the program runs as another type than tc, as in tests, no socket can be
 * looked up: set, and all is closed. */
const volatile bool fl_no_sockets = false;

static __always_inline __u32 socket_tuple(const struct packet *p, struct bpf_sock_tuple *t)
{
	if (p->family == AF_INET) {
		t->ipv4.saddr = *(const __u32 *)p->saddr;
		t->ipv4.daddr = *(const __u32 *)p->daddr;
		t->ipv4.sport = bpf_htons(p->sport);
		t->ipv4.dport = bpf_htons(p->dport);
		return sizeof(t->ipv4);
	}
	__builtin_memcpy(t->ipv6.saddr, p->saddr, 16);
	__builtin_memcpy(t->ipv6.daddr, p->daddr, 16);
	t->ipv6.sport = bpf_htons(p->sport);
	t->ipv6.dport = bpf_htons(p->dport);
	return sizeof(t->ipv6);
}

/* A socket of the node's that is connected to the packet's sender: no listener,
 * and not one that takes datagrams from anybody. */
FL_GLOBAL int fl_tcp_connected(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool connected;

	if (!p || fl_no_sockets)
		return false;
	sk = bpf_skc_lookup_tcp(skb, &t, socket_tuple(p, &t), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	connected = sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return connected;
}

FL_GLOBAL int fl_udp_connected(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	bool connected;

	if (!p || fl_no_sockets)
		return false;
	sk = bpf_sk_lookup_udp(skb, &t, socket_tuple(p, &t), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	connected = sk->dst_port != 0;
	bpf_sk_release(sk);
	return connected;
}

static __always_inline bool connected_socket(struct __sk_buff *skb, const struct packet *p)
{
	return (p->proto == IPPROTO_TCP && fl_tcp_connected(skb, p)) ||
	       (p->proto == IPPROTO_UDP && fl_udp_connected(skb, p));
}

/* An answer in a connection that this node opened. */
static __always_inline bool tracked_answer(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_ct_opts opts = { .netns_id = -1, .l4proto = p->proto };
	struct nf_conn *ct = fl_no_sockets ? NULL : track_find(skb, p->saddr, p->sport, p->daddr, p->dport, p->family, &opts);

	if (!ct)
		return false;
	bpf_ct_release(ct);
	return opts.dir == FL_TRACK_REPLY;
}

static __always_inline bool node_port(const struct packet *p)
{
	struct endpoint at = { .family = p->family, .proto = p->proto, .port = p->dport };

	return service_find(&at);
}

/* Answers to pings, and errors about packets of the node's, which it checks. */
static __always_inline bool icmp_answer(const struct packet *p)
{
	return p->kind == FL_PACKET_ICMP_ERROR ||
	       (p->proto == IPPROTO_ICMP && p->icmp_type == ICMP_ECHOREPLY) ||
	       (p->proto == IPPROTO_ICMPV6 && p->icmp_type == ICMPV6_ECHO_REPLY);
}

/* Returns HOST, or why not. Later fragments go the way of the first one: without
 * it the node puts nothing together. */
FL_GLOBAL int fl_host_verdict(struct __sk_buff *skb)
{
	struct packet p = {};
	enum reason r = parse(skb, 0, &p);

	if (r != FL_REASON_NONE)
		return r;
	if (p.frag_later || node_port(&p) || icmp_answer(&p) || connected_socket(skb, &p) || tracked_answer(skb, &p))
		return FL_REASON_HOST;
	return FL_REASON_HOST_CLOSED;
}

#endif

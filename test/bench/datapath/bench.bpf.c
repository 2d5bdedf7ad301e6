//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Stands in front of the measured program in a PROG_TEST_RUN loop: makes the
 * packet that of the next flow (the loop hands in the same buffer each time)
 * and tail-calls the program. The same loop with fl_bench_noop is what must be
 * subtracted. */
#include "fairlead/kernel.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "GPL";

struct bench {
	__u64 next; /* packets so far */
	__u64 flows; /* a power of two; 0: each packet is a flow of its own */
	__u32 peers; /* addresses on the other side */
	__u32 slot; /* which program to call */
	__u32 to_pod; /* the peer is the source */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench);
} bench_state SEC(".maps");

struct {
	__uint(type, 3 /* BPF_MAP_TYPE_PROG_ARRAY */);
	__uint(max_entries, 8);
	__uint(key_size, 4);
	__uint(value_size, 4);
} bench_progs SEC(".maps");

/* The peer's number goes into the last four bytes of its address, the flow's
 * into the port of whoever opens it. */
static __always_inline int rewrite(struct __sk_buff *skb, __u32 peer, __u16 port, bool to_pod)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_HLEN;
		__be16 *ports = (void *)(ip + 1);

		if ((void *)(ports + 2) > end)
			return -1;
		*(to_pod ? &ip->saddr : &ip->daddr) = bpf_htonl(0x0a800000 + peer);
		ports[0] = bpf_htons(port);
		return 0;
	}
	struct ipv6hdr *ip = data + ETH_HLEN;
	__be16 *ports = (void *)(ip + 1);

	if ((void *)(ports + 2) > end)
		return -1;
	(to_pod ? &ip->saddr : &ip->daddr)->s6_addr32[3] = bpf_htonl(peer);
	ports[0] = bpf_htons(port);
	return 0;
}

SEC("tc")
int fl_bench(struct __sk_buff *skb)
{
	__u32 zero = 0, peer;
	struct bench *b = bpf_map_lookup_elem(&bench_state, &zero);
	__u64 flow;

	if (!b || !b->peers)
		return TC_ACT_SHOT;
	flow = b->next++;
	if (b->flows)
		flow &= b->flows - 1;
	peer = (__u32)flow % b->peers;
	if (rewrite(skb, peer, (__u32)flow / b->peers, b->to_pod))
		return TC_ACT_SHOT;
	bpf_tail_call(skb, &bench_progs, b->slot);
	return TC_ACT_SHOT;
}

SEC("tc")
int fl_bench_noop(struct __sk_buff *skb)
{
	return skb->len ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* The same for the socket hooks. */
SEC("cgroup/connect4")
int fl_bench_connect4(struct bpf_sock_addr *ctx)
{
	return ctx->user_family == AF_INET;
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A packet too big for the tunnel is answered, not fragmented: fragments of
 * the outer packet would cost throughput and be dropped by many networks. */
#ifndef FAIRLEAD_TOOBIG_H
#define FAIRLEAD_TOOBIG_H

#include "packet.h"

/* How much of the offending packet the answer quotes. Whoever is too big has
 * that much (an MTU is at least 576), it covers every IPv4 header and the
 * transport header's checksum field, which the kernel wants to keep. */
#define FL_QUOTE 96
#define FL_MIN_MTU 576

static __always_inline bool fits(const struct __sk_buff *skb, const struct packet *p, __u32 mtu)
{
	__u32 headers;

	if (!skb->gso_size)
		return skb->len - p->l3 <= mtu;
	/* One skb, many packets: what counts is the size of each on the wire. */
	headers = p->l4 - p->l3 + (p->proto == IPPROTO_TCP ? p->tcp_doff : sizeof(struct udphdr));
	return headers + skb->gso_size <= mtu;
}

static __always_inline __sum16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Trims the packet to what is quoted and makes room for the answer's headers
 * in front. Afterwards: Ethernet, room for IP and ICMP, the quote. */
static __always_inline bool quote(struct __sk_buff *skb, __u32 room)
{
	if (bpf_skb_change_tail(skb, ETH_HLEN + FL_QUOTE, 0))
		return false;
	if (bpf_skb_change_head(skb, room, 0))
		return false;
	return !bpf_skb_pull_data(skb, ETH_HLEN + room + FL_QUOTE);
}

struct too_big4 {
	struct ethhdr eth;
	struct iphdr ip;
	struct icmphdr icmp;
	__u8 quoted[FL_QUOTE];
} __attribute__((packed));

struct too_big6 {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct icmphdr icmp;
	__u8 quoted[FL_QUOTE];
} __attribute__((packed));

static __always_inline void eth_answer(struct ethhdr *eth, const struct ethhdr *asked)
{
	__builtin_memcpy(eth->h_dest, asked->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, asked->h_dest, ETH_ALEN);
	eth->h_proto = asked->h_proto;
}

static __always_inline bool too_big_answer4(struct __sk_buff *skb, const struct packet *p, __u32 mtu,
					    const struct ethhdr *asked)
{
	struct too_big4 *a;

	if (!quote(skb, sizeof(struct iphdr) + sizeof(struct icmphdr)))
		return false;
	a = (void *)(long)skb->data;
	if ((void *)(a + 1) > (void *)(long)skb->data_end)
		return false;
	eth_answer(&a->eth, asked);
	a->ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(sizeof(*a) - ETH_HLEN),
		.ttl = 64,
		.protocol = IPPROTO_ICMP,
		/* As if from the destination: the pod can check nothing else. */
		.saddr = *(const __be32 *)p->daddr,
		.daddr = *(const __be32 *)p->saddr,
	};
	a->ip.check = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&a->ip, sizeof(a->ip), 0));
	a->icmp = (struct icmphdr){
		.type = ICMP_DEST_UNREACH,
		.code = ICMP_FRAG_NEEDED,
		.mtu = bpf_htons(mtu),
	};
	a->icmp.checksum = csum_fold(
		bpf_csum_diff(NULL, 0, (__be32 *)&a->icmp, sizeof(a->icmp) + FL_QUOTE, 0));
	return true;
}

static __always_inline bool too_big_answer6(struct __sk_buff *skb, const struct packet *p, __u32 mtu,
					    const struct ethhdr *asked)
{
	__u32 len = sizeof(struct icmphdr) + FL_QUOTE, sum;
	__be32 pseudo[2] = { bpf_htonl(len), bpf_htonl(IPPROTO_ICMPV6) };
	struct too_big6 *a;

	if (!quote(skb, sizeof(struct ipv6hdr) + sizeof(struct icmphdr)))
		return false;
	a = (void *)(long)skb->data;
	if ((void *)(a + 1) > (void *)(long)skb->data_end)
		return false;
	eth_answer(&a->eth, asked);
	a->ip = (struct ipv6hdr){
		.version = 6,
		.payload_len = bpf_htons(len),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = 64,
	};
	__builtin_memcpy(&a->ip.saddr, p->daddr, 16);
	__builtin_memcpy(&a->ip.daddr, p->saddr, 16);
	a->icmp = (struct icmphdr){ .type = ICMPV6_PKT_TOOBIG, .mtu = bpf_htons(mtu) };
	sum = bpf_csum_diff(NULL, 0, pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&a->ip.saddr, 32, sum);
	a->icmp.checksum = csum_fold(bpf_csum_diff(NULL, 0, (__be32 *)&a->icmp, len, sum));
	return true;
}

/* Turns the packet into the answer and sends it back to the pod it came from.
 * Returns the tc action. */
FL_GLOBAL int fl_too_big(struct __sk_buff *skb, const struct packet *p, __u32 mtu)
{
	struct ethhdr asked;

	/* Never an error about an error; and a later fragment quotes no ports. */
	if (!p || mtu < FL_MIN_MTU || p->kind == FL_PACKET_ICMP_ERROR || p->frag_later)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, 0, &asked, sizeof(asked)))
		return TC_ACT_SHOT;
	if (!(p->family == AF_INET ? too_big_answer4(skb, p, mtu, &asked) :
				     too_big_answer6(skb, p, mtu, &asked)))
		return TC_ACT_SHOT;
	skb->mark = FL_MARK_OWN; /* pod_ingress lets it pass */
	return bpf_redirect(skb->ifindex, 0);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* From bytes to a struct packet: addresses, ports, what kind of packet it is.
 * Everything after this file asks the struct, not the bytes. */
#ifndef FAIRLEAD_PACKET_H
#define FAIRLEAD_PACKET_H

#include "fairlead/types.h"
#include "global.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FL_IPV6_MAX_EXTENSIONS 6
#define FL_MAX_L4_OFFSET 2047

enum packet_kind {
	FL_PACKET_PLAIN = 0,
	FL_PACKET_NEIGHBOR = 1, /* IPv6 neighbour discovery or multicast listener */
	FL_PACKET_ICMP_ERROR = 2,
};

/* What an ICMP message is to its flow. */
enum icmp_role {
	FL_ICMP_ASKS = 1, /* it opens one; so does what has no answer */
	FL_ICMP_ANSWERS = 2,
	FL_ICMP_UNASKED = 3, /* an answer that nobody asked for */
};

struct packet {
	__u8 saddr[16] __attribute__((aligned(8))); /* IPv4: first four bytes */
	__u8 daddr[16] __attribute__((aligned(8)));
	__u16 sport; /* host order; of ICMP see fl_icmp_ports */
	__u16 dport;
	__u8 family; /* AF_INET, AF_INET6; 0: not IP */
	__u8 proto;
	__u8 tcp_flags;
	__u8 tcp_doff; /* TCP header length in bytes */
	__u8 kind; /* packet_kind */
	__u8 icmp_type;
	__u8 frag_first; /* more fragments follow; this one has the ports */
	__u8 frag_later; /* no ports inside; where it begins, in units of 8 bytes up to 255 */
	__u32 frag_id;
	__u16 l3; /* offset of the IP header: 14, or 0 on L3 devices */
	__u16 l4;
	__u8 icmp_role; /* 0: it isn't ICMP */
	__u8 pad[3];
};

/* Most packets have their headers in the linear part already. A pull may copy,
 * so it is only done when the bytes are really elsewhere, and asks for no more
 * than the header that is read next: a TCP segment has 66 bytes there. What a
 * verdict depends on is pulled before it is read: the sender may share the memory
 * that it lies in (PACKET_TX_RING), and write to it meanwhile. */
static __always_inline void packet_pull(struct __sk_buff *skb, __u32 need)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 linear = end - data;

	if (linear < need && linear < skb->len)
		bpf_skb_pull_data(skb, need < skb->len ? need : skb->len);
	/* Or the compiler keeps data as the number that was subtracted, which
	 * is no pointer to the verifier. */
	barrier();
}

/* How much of the transport header parse_l4 reads. */
static __always_inline __u32 l4_need(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return sizeof(struct tcphdr);
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		return sizeof(struct udphdr);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return sizeof(struct icmphdr);
	}
	return 0;
}

static __always_inline bool icmp4_is_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETERPROB || type == ICMP_SOURCE_QUENCH;
}

static __always_inline bool is_icmp(__u8 proto)
{
	return proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6;
}

/* The type that an ICMP message answers; without one, its own. */
static __always_inline __u8 icmp_asked(__u8 family, __u8 type)
{
	if (family == AF_INET6)
		return type == ICMPV6_ECHO_REPLY || type == ICMPV6_NODE_REPLY || type == ICMPV6_EXT_ECHO_REPLY ?
			       type - 1 :
			       type;
	if (type == ICMP_ECHOREPLY)
		return ICMP_ECHO;
	return type == ICMP_TIMESTAMPREPLY || type == ICMP_INFO_REPLY || type == ICMP_ADDRESSREPLY ||
			       type == ICMP_EXT_ECHOREPLY ?
		       type - 1 :
		       type;
}

static __always_inline bool icmp_is_question(__u8 family, __u8 type)
{
	if (family == AF_INET6)
		return type == ICMPV6_ECHO_REQUEST || type == ICMPV6_NODE_QUERY || type == ICMPV6_EXT_ECHO_REQUEST;
	return type == ICMP_ECHO || type == ICMP_TIMESTAMP || type == ICMP_INFO_REQUEST ||
	       type == ICMP_ADDRESS || type == ICMP_EXT_ECHO;
}

/* ICMP's ports: what is sent goes from the id to the type (+ 1: port 0 is no port),
 * an answer from the type that was asked to the id. So a question and its answer are
 * one flow, whose destination is what policies name, and messages of another type
 * are others. What has no answer has no id. */
FL_GLOBAL int fl_icmp_ports(struct packet *p, __u32 id)
{
	__u16 asked;

	if (!p)
		return 0;
	asked = icmp_asked(p->family, p->icmp_type);
	p->icmp_role = asked == p->icmp_type ? FL_ICMP_ASKS : FL_ICMP_ANSWERS;
	if (p->icmp_role == FL_ICMP_ANSWERS) {
		p->sport = asked + 1;
		p->dport = id;
		return 0;
	}
	p->sport = icmp_is_question(p->family, p->icmp_type) ? id : 0;
	p->dport = asked + 1;
	return 0;
}

/* An answer to no question that we know of is a message of its own. */
static __always_inline void icmp_unasked(struct packet *p)
{
	if (p->icmp_role != FL_ICMP_ANSWERS)
		return;
	p->icmp_role = FL_ICMP_UNASKED;
	p->sport = p->dport;
	p->dport = p->icmp_type + 1;
}

/* Reads the transport header at p->l4. IPv4 and IPv6 meet here. */
static __always_inline enum reason parse_l4(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 off = p->l4;
	void *l4;

	/* The verifier wants a bound; no honest header chain comes near it. */
	barrier_var(off);
	if (off > FL_MAX_L4_OFFSET)
		return FL_REASON_MALFORMED;
	l4 = data + off;

	switch (p->proto) {
	case IPPROTO_TCP: {
		struct tcphdr *tcp = l4;

		if ((void *)(tcp + 1) > end || tcp->doff < 5)
			return FL_REASON_MALFORMED;
		p->sport = bpf_ntohs(tcp->source);
		p->dport = bpf_ntohs(tcp->dest);
		p->tcp_flags = tcp->flags;
		p->tcp_doff = tcp->doff * 4;
		return FL_REASON_NONE;
	}
	case IPPROTO_UDP:
	case IPPROTO_SCTP: {
		struct udphdr *udp = l4; /* SCTP starts with the same two ports */

		if ((void *)(udp + 1) > end)
			return FL_REASON_MALFORMED;
		p->sport = bpf_ntohs(udp->source);
		p->dport = bpf_ntohs(udp->dest);
		return FL_REASON_NONE;
	}
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6: {
		struct icmphdr *icmp = l4;
		bool v6 = p->proto == IPPROTO_ICMPV6;
		__u16 id;

		/* ICMP inside IPv6, and the reverse, is nothing any host sends. */
		if ((void *)(icmp + 1) > end || v6 != (p->family == AF_INET6))
			return FL_REASON_MALFORMED;
		p->icmp_type = icmp->type;
		id = bpf_ntohs(icmp->id);
		if (v6 ? p->icmp_type < 128 : icmp4_is_error(p->icmp_type))
			p->kind = FL_PACKET_ICMP_ERROR;
		fl_icmp_ports(p, id);
		return FL_REASON_NONE;
	}
	}
	return FL_REASON_NONE; /* other protocols: a flow without ports */
}

/* Reads addresses and protocol. Leaves family 0 when the packet is neither
 * IPv4 nor IPv6; the caller decides about those. */
static __always_inline enum reason parse_addresses(struct __sk_buff *skb, __u16 l3, struct packet *p)
{
	void *data, *end;

	p->l3 = l3;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip;

		packet_pull(skb, l3 + sizeof(*ip));
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ip = data + l3;
		if ((void *)(ip + 1) > end || ip->version != 4)
			return FL_REASON_MALFORMED;
		p->family = AF_INET;
		p->proto = ip->protocol;
		*(__be32 *)p->saddr = ip->saddr;
		*(__be32 *)p->daddr = ip->daddr;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip;

		packet_pull(skb, l3 + sizeof(*ip));
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ip = data + l3;
		if ((void *)(ip + 1) > end || ip->version != 6)
			return FL_REASON_MALFORMED;
		p->family = AF_INET6;
		p->proto = ip->nexthdr;
		__builtin_memcpy(p->saddr, &ip->saddr, 16);
		__builtin_memcpy(p->daddr, &ip->daddr, 16);
	}
	return FL_REASON_NONE;
}

/* Where a later fragment begins, as frag_later has it. */
static __always_inline __u8 fragment_start(__u32 units)
{
	return units > 0xff ? 0xff : units;
}

static __always_inline enum reason parse_ip4(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + p->l3;
	__u16 frag;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return FL_REASON_MALFORMED;
	p->family = AF_INET;
	*(__be32 *)p->saddr = ip->saddr;
	*(__be32 *)p->daddr = ip->daddr;
	p->proto = ip->protocol;
	p->l4 = p->l3 + ip->ihl * 4;
	frag = bpf_ntohs(ip->frag_off);
	if (frag & (IP_MF | IP_OFFSET)) {
		p->frag_later = fragment_start(frag & IP_OFFSET);
		p->frag_first = !p->frag_later;
		p->frag_id = ip->id;
	}
	if (p->frag_later)
		return FL_REASON_NONE;
	packet_pull(skb, p->l4 + l4_need(p->proto));
	return parse_l4(skb, p);
}

/* Steps over the extension headers to the transport header. Loads by helper, from
 * what was pulled:
 * packets with extension headers are rare, and this keeps the verifier's work
 * small. */
FL_GLOBAL int fl_skip_ip6_extensions(struct __sk_buff *skb, struct packet *p)
{
	__u32 off;

	if (!p)
		return FL_REASON_MALFORMED;
	off = p->l4;
	if (p->proto == IPPROTO_HOPOPTS || p->proto == IPPROTO_ROUTING || p->proto == IPPROTO_DSTOPTS ||
	    p->proto == IPPROTO_FRAGMENT)
		packet_pull(skb, FL_MAX_L4_OFFSET);

	for (int i = 0; i < FL_IPV6_MAX_EXTENSIONS; i++) {
		struct ipv6_opt_hdr opt;
		struct frag_hdr frag;

		switch (p->proto) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (bpf_skb_load_bytes(skb, off, &opt, sizeof(opt)))
				return FL_REASON_MALFORMED;
			p->proto = opt.nexthdr;
			off += (opt.hdrlen + 1) * 8;
			break;
		case IPPROTO_FRAGMENT:
			if (bpf_skb_load_bytes(skb, off, &frag, sizeof(frag)))
				return FL_REASON_MALFORMED;
			p->proto = frag.nexthdr;
			p->frag_id = frag.identification;
			p->frag_later = fragment_start(bpf_ntohs(frag.frag_off) >> 3);
			p->frag_first = !p->frag_later && (bpf_ntohs(frag.frag_off) & 1);
			off += sizeof(frag);
			if (p->frag_later)
				return FL_REASON_NONE;
			break;
		default:
			p->l4 = off;
			return FL_REASON_NONE;
		}
	}
	return FL_REASON_MALFORMED; /* an absurd chain only hides something */
}

static __always_inline bool addr_is_unspecified(const __u8 *a)
{
	const __u32 *x = (const __u32 *)a;

	return !(x[0] | x[1] | x[2] | x[3]);
}

static __always_inline bool addr_is_link_local(const __u8 *a)
{
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

static __always_inline bool addr_is_link_multicast(const __u8 *a)
{
	return a[0] == 0xff && (a[1] & 0xf) == 2;
}

/* Multicast, and the broadcast to whoever is on the link. */
static __always_inline bool addr_is_group(__u8 family, const __u8 *a)
{
	if (family == AF_INET6)
		return a[0] == 0xff;
	return (a[0] & 0xf0) == 0xe0 || *(const __u32 *)a == 0xffffffff;
}

static __always_inline enum reason parse_ip6(struct __sk_buff *skb, struct packet *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + p->l3;
	enum reason r;
	bool hop_limit_untouched, link_only;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return FL_REASON_MALFORMED;
	p->family = AF_INET6;
	__builtin_memcpy(p->saddr, &ip->saddr, 16);
	__builtin_memcpy(p->daddr, &ip->daddr, 16);
	p->proto = ip->nexthdr;
	p->l4 = p->l3 + sizeof(*ip);
	hop_limit_untouched = ip->hop_limit == 255;
	link_only = ip->hop_limit == 1;

	r = fl_skip_ip6_extensions(skb, p);
	if (r != FL_REASON_NONE || p->frag_later)
		return r;
	packet_pull(skb, p->l4 + l4_need(p->proto));
	r = parse_l4(skb, p);
	if (p->proto != IPPROTO_ICMPV6)
		return r;
	/* Neighbour discovery must not have been forwarded (RFC 4861, 3.1);
	 * listener messages can't be, come from a link-local address (or none yet)
	 * and go to the link's multicast (RFC 3810, 5; RFC 3590). */
	if (p->icmp_type >= NDISC_ROUTER_SOLICITATION && p->icmp_type <= NDISC_REDIRECT &&
	    hop_limit_untouched)
		p->kind = FL_PACKET_NEIGHBOR;
	if (((p->icmp_type >= ICMPV6_MLD_QUERY && p->icmp_type <= ICMPV6_MLD_DONE) ||
	     p->icmp_type == ICMPV6_MLD2_REPORT) &&
	    link_only && addr_is_link_multicast(p->daddr) &&
	    (addr_is_link_local(p->saddr) || addr_is_unspecified(p->saddr)))
		p->kind = FL_PACKET_NEIGHBOR;
	return r;
}

/* An ARP packet, with what a card pads it to (linux/if_ether.h has it as ETH_ZLEN). */
#define FL_ARP_MAX 60

/* Bytes of a question who a neighbour is, and of its answer: header and target are
 * 24, and hosts add one or two options of 8. More would only carry data past policy.
 * Routers have more to say. */
#define FL_DISCOVERY_MAX 128

static __always_inline bool discovery_too_long(const struct __sk_buff *skb, const struct packet *p)
{
	return p->kind == FL_PACKET_NEIGHBOR && skb->len > p->l4 + FL_DISCOVERY_MAX &&
	       (p->icmp_type == NDISC_ROUTER_SOLICITATION || p->icmp_type == NDISC_NEIGHBOUR_SOLICITATION ||
		p->icmp_type == NDISC_NEIGHBOUR_ADVERTISEMENT);
}

/* Parses the packet whose IP header starts at l3. Leaves family 0 when it is
 * neither IPv4 nor IPv6; the caller decides about those. */
static __always_inline enum reason parse(struct __sk_buff *skb, __u16 l3, struct packet *p)
{
	p->l3 = l3;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		packet_pull(skb, l3 + sizeof(struct iphdr));
		return parse_ip4(skb, p);
	case bpf_htons(ETH_P_IPV6):
		packet_pull(skb, l3 + sizeof(struct ipv6hdr));
		return parse_ip6(skb, p);
	}
	return FL_REASON_NONE;
}

static __always_inline bool addr_equal(__u8 family, const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	if (family == AF_INET)
		return x[0] == y[0];
	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

#endif

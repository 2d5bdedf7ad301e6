/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* ICMP errors belong to the flow whose packet they quote. Without them path
 * MTU discovery breaks; without a known flow they are only noise or an attack. */
#ifndef FAIRLEAD_RELATED_H
#define FAIRLEAD_RELATED_H

#include "flow.h"

/* The longest header that is quoted, without IPv6 extensions, and eight bytes. */
#define FL_QUOTE_MAX 68

/* Reads the quoted packet's header: addresses, protocol, ports. RFC 792 only
 * promises eight bytes of transport header, which is what we read. */
static __always_inline bool parse_quoted(struct __sk_buff *skb, const struct packet *outer,
					 struct packet *inner)
{
	__u32 off = outer->l4 + sizeof(struct icmphdr);
	struct icmphdr l4; /* its eight bytes: ports, or type and id */
	bool v6 = outer->family == AF_INET6;

	inner->family = outer->family;
	packet_pull(skb, off + FL_QUOTE_MAX);
	if (v6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
			return false;
		__builtin_memcpy(inner->saddr, &ip.saddr, 16);
		__builtin_memcpy(inner->daddr, &ip.daddr, 16);
		inner->proto = ip.nexthdr;
		inner->l4 = off + sizeof(ip);
		/* A later fragment has no ports by which its flow could be found. */
		if (fl_skip_ip6_extensions(skb, inner) != FL_REASON_NONE || inner->frag_later)
			return false;
		off = inner->l4;
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) || ip.ihl < 5)
			return false;
		*(__be32 *)inner->saddr = ip.saddr;
		*(__be32 *)inner->daddr = ip.daddr;
		inner->proto = ip.protocol;
		off += ip.ihl * 4;
	}
	packet_pull(skb, off + sizeof(l4));
	if (bpf_skb_load_bytes(skb, off, &l4, sizeof(l4)))
		return false;
	if (has_ports(inner->proto)) {
		inner->sport = bpf_ntohs(*(__be16 *)&l4);
		inner->dport = bpf_ntohs(l4.checksum);
	} else if (inner->proto == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
		inner->icmp_type = l4.type;
		fl_icmp_ports(inner, bpf_ntohs(l4.id));
	}
	return true;
}

/* An error the pod sends quotes a packet it got; one it gets quotes a packet
 * it sent. Either way the quoted packet goes against the error, and must be of
 * a flow the pod has. */
FL_GLOBAL int fl_related_verdict(struct __sk_buff *skb, struct pod_ctx *c)
{
	struct packet inner = {};
	union ct_key k = {};
	struct ct_entry *e;
	bool from_pod;

	if (!c)
		return FL_REASON_MALFORMED;
	from_pod = ctx_from_pod(c);
	if (!parse_quoted(skb, &c->p, &inner))
		return FL_REASON_MALFORMED;
	/* The quoted sender is who must hear of it. */
	if (!addr_equal(c->p.family, inner.saddr, c->p.daddr))
		return FL_REASON_UNRELATED;
	if (from_pod && !addr_equal(c->p.family, inner.daddr, c->p.saddr))
		return FL_REASON_UNRELATED;
	ct_key_of(&inner, !from_pod, &k);
	e = ct_find(c->p.family, &k);
	if (!e || ct_expired(e, inner.proto, c->now) || (e->flags & FL_CT_DENIED))
		return FL_REASON_UNRELATED;
	/* A verdict that may no longer hold carries no errors: the flow's next
	 * packet is judged, errors about it pass again then. */
	c->address_epoch = address_epoch(from_pod ? inner.saddr : inner.daddr);
	if (!verdict_is_current(c, e) &&
	    !verdict_still_holds(c, e, e->flags & FL_CT_BY_POD ? FL_DIR_EGRESS : FL_DIR_INGRESS))
		return FL_REASON_UNRELATED;
	/* About an encrypted flow, only the tunnel's other end is believed: a
	 * forged "too big" could otherwise throttle it from outside. */
	if (!from_pod && !c->from_tunnel && (e->flags & FL_CT_REQUIRE_TUNNEL))
		return FL_REASON_PLAINTEXT;
	c->via_tunnel = !!(e->flags & FL_CT_VIA_TUNNEL);
	c->peer = e->peer;
	return FL_REASON_RELATED;
}

#endif

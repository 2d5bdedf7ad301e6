/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Pods of a foreign CNI keep the underlay's MTU, which is too much inside the
 * tunnel. Telling both ends of a TCP connection in their SYNs costs nothing
 * and spares the later "too big". */
#ifndef FAIRLEAD_MSS_H
#define FAIRLEAD_MSS_H

#include "packet.h"

#define FL_TCPOPT_END 0
#define FL_TCPOPT_NOP 1
#define FL_TCPOPT_MSS 2
#define FL_TCPOPT_MAX 10 /* Linux sends MSS first; ten options fill a header */

static __always_inline enum reason mss_lower(struct __sk_buff *skb, __u32 l4, __u32 off, __u16 limit)
{
	__be16 old, new = bpf_htons(limit), from, to;

	if (bpf_skb_load_bytes(skb, off + 2, &old, sizeof(old)))
		return FL_REASON_MALFORMED;
	if (bpf_ntohs(old) <= limit)
		return FL_REASON_NONE;
	if (bpf_skb_store_bytes(skb, off + 2, &new, sizeof(new), 0))
		return FL_REASON_PACKET_EDIT;
	/* At an odd offset the value straddles two words of the sum. */
	from = (off - l4) & 1 ? __builtin_bswap16(old) : old;
	to = (off - l4) & 1 ? __builtin_bswap16(new) : new;
	if (bpf_l4_csum_replace(skb, l4 + offsetof(struct tcphdr, check), from, to, sizeof(to)))
		return FL_REASON_PACKET_EDIT;
	return FL_REASON_NONE;
}

/* Lowers the MSS of a SYN or SYN-ACK so that full segments fit the tunnel. */
FL_GLOBAL int fl_mss_clamp(struct __sk_buff *skb, const struct packet *p, __u32 mtu)
{
	__u32 headers, off, end;

	if (!p)
		return FL_REASON_MALFORMED;
	headers = (p->family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) +
		  sizeof(struct tcphdr);
	off = p->l4 + sizeof(struct tcphdr);
	end = p->l4 + p->tcp_doff;
	if (mtu <= headers)
		return FL_REASON_NONE;
	for (int i = 0; i < FL_TCPOPT_MAX; i++) {
		__u8 opt[2];

		if (off + sizeof(opt) > end || bpf_skb_load_bytes(skb, off, opt, sizeof(opt)))
			return FL_REASON_NONE;
		if (opt[0] == FL_TCPOPT_END)
			return FL_REASON_NONE;
		if (opt[0] == FL_TCPOPT_MSS)
			return mss_lower(skb, p->l4, off, mtu - headers);
		if (opt[0] != FL_TCPOPT_NOP && opt[1] < 2)
			return FL_REASON_MALFORMED;
		off += opt[0] == FL_TCPOPT_NOP ? 1 : opt[1];
	}
	return FL_REASON_NONE;
}

#endif

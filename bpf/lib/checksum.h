/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A packet whose checksum is still to be computed is written to after we judged
 * it, by a device or the tunnel, where its sender said that the checksum is. An
 * honest stack says: in the transport header. One with raw sockets can say: in
 * the source address. */
#ifndef FAIRLEAD_CHECKSUM_H
#define FAIRLEAD_CHECKSUM_H

#include "packet.h"
#include <bpf/bpf_core_read.h>

/* Set by the loader where the kernel shows programs its own form of a packet (6.2).
 * Elsewhere nobody can tell. */
const volatile bool fl_kernel_packets = false;

#define CHECKSUM_PARTIAL 3

/* As much of the kernel's as is read here; offsets come from its BTF. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sk_buff {
	__u8 ip_summed : 2;
	__u16 csum_start; /* from head */
	__u16 csum_offset; /* from csum_start */
	unsigned char *head;
	unsigned char *data;
};
#pragma clang attribute pop

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

/* Where the checksum of a transport header belongs; 0: it has none that a stack
 * leaves to others. */
static __always_inline __u32 checksum_offset(const struct packet *p)
{
	switch (p->proto) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
		return 6;
	case IPPROTO_SCTP:
		return 8;
	case IPPROTO_ICMPV6:
		return 2;
	}
	return 0;
}

/* Bytes from the transport header on that were read to judge the packet. */
static __always_inline __u32 judged_length(const struct packet *p)
{
	if (p->kind != FL_PACKET_PLAIN || !p->family)
		return 0xffff; /* discovery, errors, ARP: what is within counts as well */
	switch (p->proto) {
	case IPPROTO_TCP:
		return p->tcp_doff;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 8;
	case IPPROTO_SCTP:
		return 12;
	}
	return 0;
}

/* A packet within a packet, as pods' own tunnels make them, has its checksum
 * further on. Returns NONE, or why the packet is dropped. */
FL_GLOBAL int fl_checksum_verdict(struct __sk_buff *ctx, const struct packet *p)
{
	struct sk_buff *skb;
	__u32 l4, at;

	if (!p)
		return FL_REASON_MALFORMED;
	if (!fl_kernel_packets)
		return FL_REASON_NONE;
	skb = bpf_cast_to_kern_ctx(ctx);
	if (BPF_CORE_READ_BITFIELD(skb, ip_summed) != CHECKSUM_PARTIAL)
		return FL_REASON_NONE;
	/* Who makes fragments sums first. A later one has no transport header to bound
	 * what may be written, and its fragment header says where it belongs. */
	if (p->frag_first || p->frag_later)
		return FL_REASON_MALFORMED;
	l4 = (__u32)((__u64)skb->data - (__u64)skb->head) + p->l4;
	at = (__u32)skb->csum_start + skb->csum_offset;
	if (p->family && checksum_offset(p) && at == l4 + checksum_offset(p))
		return FL_REASON_NONE;
	return at >= l4 + judged_length(p) ? FL_REASON_NONE : FL_REASON_MALFORMED;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Only the first fragment of a datagram holds the ports. It leaves them here
 * for the others, once policy has let it pass: what is denied must not push out
 * what isn't. */
#ifndef FAIRLEAD_FRAGMENTS_H
#define FAIRLEAD_FRAGMENTS_H

#include "fairlead/maps.h"
#include "packet.h"

static __always_inline void fragment_key(const struct packet *p, struct frag_key *k)
{
	k->id = p->frag_id;
	k->proto = p->proto;
	k->family = p->family;
	__builtin_memcpy(k->saddr, p->saddr, 16);
	__builtin_memcpy(k->daddr, p->daddr, 16);
}

/* Fills in the ports of later fragments. One that comes before the first is
 * dropped: without ports no policy can be asked, and guessing would open. */
FL_GLOBAL int fl_fragment_ports(struct packet *p)
{
	struct frag_key k = {};
	struct frag_ports *known;

	if (!p)
		return FL_REASON_FRAGMENT;
	/* It would put others in the place of flags that were judged (RFC 3128): the
	 * first one bears all of TCP's header. */
	if (p->proto == IPPROTO_TCP && p->frag_later * 8 < sizeof(struct tcphdr))
		return FL_REASON_MALFORMED;
	fragment_key(p, &k);
	known = bpf_map_lookup_elem(&fl_frags, &k);
	if (!known)
		return FL_REASON_FRAGMENT;
	p->sport = known->sport;
	p->dport = known->dport;
	p->icmp_type = known->icmp_type;
	p->icmp_role = known->icmp_role;
	return FL_REASON_NONE;
}

/* Keeps the ports of a first fragment that passes. Returns the verdict, or why it is
 * another now. */
FL_GLOBAL int fl_fragment_keep(const struct packet *p, __u32 verdict)
{
	struct frag_key k = {};
	struct frag_ports ports = {};

	if (!p)
		return FL_REASON_FLOW_TABLE;
	if (!p->frag_first || verdict >= FL_REASON_FIRST_DROP)
		return verdict;
	fragment_key(p, &k);
	ports.sport = p->sport;
	ports.dport = p->dport;
	ports.icmp_type = p->icmp_type;
	ports.icmp_role = p->icmp_role;
	return bpf_map_update_elem(&fl_frags, &k, &ports, BPF_ANY) ? FL_REASON_FLOW_TABLE : (int)verdict;
}

#endif

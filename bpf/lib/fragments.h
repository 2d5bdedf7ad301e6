/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Only the first fragment of a datagram holds the ports. It leaves them here
 * for the others. */
#ifndef FAIRLEAD_FRAGMENTS_H
#define FAIRLEAD_FRAGMENTS_H

#include "fairlead/maps.h"
#include "packet.h"

/* Fills in the ports of later fragments. One that comes before the first is
 * dropped: without ports no policy can be asked, and guessing would open. */
FL_GLOBAL int fl_fragment_ports(struct packet *p)
{
	struct frag_key k = {};
	struct frag_ports *known;

	if (!p)
		return FL_REASON_FRAGMENT;
	k.id = p->frag_id;
	k.proto = p->proto;
	k.family = p->family;
	__builtin_memcpy(k.saddr, p->saddr, 16);
	__builtin_memcpy(k.daddr, p->daddr, 16);
	if (p->frag_later) {
		known = bpf_map_lookup_elem(&fl_frags, &k);
		if (!known)
			return FL_REASON_FRAGMENT;
		p->sport = known->sport;
		p->dport = known->dport;
		p->icmp_type = known->icmp_type;
		p->icmp_role = known->icmp_role;
		return FL_REASON_NONE;
	}
	struct frag_ports ports = {
		.sport = p->sport,
		.dport = p->dport,
		.icmp_type = p->icmp_type,
		.icmp_role = p->icmp_role,
	};

	if (bpf_map_update_elem(&fl_frags, &k, &ports, BPF_ANY))
		return FL_REASON_FLOW_TABLE;
	return FL_REASON_NONE;
}

#endif

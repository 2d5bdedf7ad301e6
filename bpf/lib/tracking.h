/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The kernel's connection tracking, asked from here: kfuncs of 5.18, for TCP and
 * UDP alone. A kernel may have none. */
#ifndef FAIRLEAD_TRACKING_H
#define FAIRLEAD_TRACKING_H

#include "packet.h"

/* Set by the loader where the kernel has both kfuncs. No test of their addresses:
 * a kfunc of a module has none that the verifier takes. */
const volatile bool fl_tracking = false;

/* enum ip_conntrack_dir */
#define FL_TRACK_ORIGINAL 0
#define FL_TRACK_REPLY 1

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
union nf_conntrack_man_proto {
	__be16 all;
};
struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
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

/* The connection that one of these packets belongs to, with the direction of it
 * in opts; NULL if there is none. Release it. */
static __always_inline struct nf_conn *track_find(struct __sk_buff *skb, const __u8 *from, __u16 sport,
						  const __u8 *to, __u16 dport, __u8 family,
						  struct bpf_ct_opts *opts)
{
	struct bpf_sock_tuple t = {};

	if (!fl_tracking)
		return NULL;
	if (family == AF_INET) {
		t.ipv4.saddr = *(const __u32 *)from;
		t.ipv4.daddr = *(const __u32 *)to;
		t.ipv4.sport = bpf_htons(sport);
		t.ipv4.dport = bpf_htons(dport);
		return bpf_skb_ct_lookup(skb, &t, sizeof(t.ipv4), opts, sizeof(*opts));
	}
	__builtin_memcpy(t.ipv6.saddr, from, 16);
	__builtin_memcpy(t.ipv6.daddr, to, 16);
	t.ipv6.sport = bpf_htons(sport);
	t.ipv6.dport = bpf_htons(dport);
	return bpf_skb_ct_lookup(skb, &t, sizeof(t.ipv6), opts, sizeof(*opts));
}

/* The address of a side. IPv4: the first four bytes. The caller names the side in
 * one expression with constants, else its offset would be ours and not the kernel's. */
static __always_inline void track_addr(const struct nf_conntrack_man *side, __u8 family, __u8 *addr)
{
	__u32 *to = (__u32 *)addr;

	to[0] = side->u3.all[0];
	if (family != AF_INET6)
		return;
	to[1] = side->u3.all[1];
	to[2] = side->u3.all[2];
	to[3] = side->u3.all[3];
}

#endif

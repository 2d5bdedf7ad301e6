//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The last gate: tc egress on the node's uplinks. Whatever routes, NAT or
 * other programs did, a packet from or to another cluster's pods never leaves
 * this node in the clear. WireGuard's own datagrams go between node addresses,
 * which are in no such range. */
#include "clock.h"
#include "fairlead/maps.h"
#include "hook.h"

#include "events.h"

char _license[] SEC("license") = "GPL";

/* The trie is small and its own: two lookups in it cost less than one hash with
 * the addresses of a large mesh, which seldom are in the cache here. */
static __always_inline bool must_be_encrypted(__u8 family, const __u8 *addr)
{
	__u32 *guarded;

	if (family == AF_INET) {
		struct cidr4 k = { .prefixlen = 32 };

		__builtin_memcpy(k.addr, addr, 4);
		guarded = bpf_map_lookup_elem(&fl_guard4, &k);
	} else {
		struct cidr6 k = { .prefixlen = 128 };

		__builtin_memcpy(k.addr, addr, 16);
		guarded = bpf_map_lookup_elem(&fl_guard6, &k);
	}
	return guarded && *guarded;
}

SEC("tc")
int fl_uplink_egress(struct __sk_buff *skb)
{
	const struct config *cfg = config_get();
	struct packet p = {};

	if (!cfg)
		return TC_ACT_SHOT;
	/* What isn't IP, or is too broken to have addresses, isn't a pod's. */
	if (parse_addresses(skb, ETH_HLEN, &p) != FL_REASON_NONE || !p.family)
		return TC_ACT_UNSPEC;
	if (!must_be_encrypted(p.family, p.daddr) && !must_be_encrypted(p.family, p.saddr))
		return TC_ACT_UNSPEC;

	struct report rep = {
		.epoch = cfg->policy_epoch,
		.now = now_ticks(),
		.events_per_tick = cfg->events_per_tick,
		.hook = FL_HOOK_UPLINK_EGRESS,
		.packet_dir = FL_DIR_EGRESS,
		.dir = FL_DIR_EGRESS,
		.verdict = FL_VERDICT_DENY,
		.reason = FL_REASON_PLAINTEXT_LEAK,
	};

	fl_event_send(skb, &p, &rep);
	return leave(skb, FL_HOOK_UPLINK_EGRESS, FL_REASON_PLAINTEXT_LEAK);
}

//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Decrypted packets: tc ingress on the tunnel device, an L3 device, so the
 * packet starts at its IP header. The peer's key has proved the source
 * address; which addresses a peer may use comes from the mesh's records. */
#include "clock.h"
#include "hook.h"
#include "hostport.h"
#include "ipcache.h"

#include "events.h"

char _license[] SEC("license") = "GPL";

static __always_inline struct local *local_find(const struct packet *p)
{
	if (p->family == AF_INET)
		return bpf_map_lookup_elem(&fl_locals4, p->daddr);
	if (addr_is_link_local(p->daddr)) /* the tunnel spans no link */
		return NULL;
	return bpf_map_lookup_elem(&fl_locals6, p->daddr);
}

/* Gives the packet the Ethernet header of a frame from the node to the pod and
 * sends it to the pod's interface, past the node's FORWARD chain. pod_ingress
 * judges it there and believes the mark. */
static __always_inline int deliver(struct __sk_buff *skb, const struct local *to)
{
	struct local pod = *to;
	__be16 proto = skb->protocol;
	struct ethhdr *eth;

	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return leave(skb, FL_HOOK_TUNNEL_INGRESS, FL_REASON_PACKET_EDIT);
	eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return leave(skb, FL_HOOK_TUNNEL_INGRESS, FL_REASON_PACKET_EDIT);
	__builtin_memcpy(eth->h_dest, pod.pod_mac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, pod.host_mac, ETH_ALEN);
	eth->h_proto = proto;
	skb->mark = FL_MARK_TUNNEL;
	leave(skb, FL_HOOK_TUNNEL_INGRESS, FL_REASON_DELIVERED);
	return bpf_redirect(pod.ifindex, 0);
}

static __always_inline int refuse(struct __sk_buff *skb, const struct packet *p, const struct config *cfg,
				  __u32 src_identity, enum reason reason)
{
	struct report r = {
		.peer = src_identity,
		.epoch = cfg->policy_epoch,
		.now = now_ticks(),
		.events_per_tick = cfg->events_per_tick,
		.hook = FL_HOOK_TUNNEL_INGRESS,
		.packet_dir = FL_DIR_INGRESS,
		.dir = FL_DIR_INGRESS,
		.verdict = FL_VERDICT_DENY,
		.reason = reason,
		.flags = FL_EVENT_VIA_TUNNEL,
	};

	fl_event_send(skb, p, &r);
	return leave(skb, FL_HOOK_TUNNEL_INGRESS, reason);
}

SEC("tc")
int fl_tunnel_ingress(struct __sk_buff *skb)
{
	const struct config *cfg = config_get();
	struct packet p = {};
	struct remote *source, *dest;
	struct local *local;
	enum reason r;

	if (!cfg)
		return TC_ACT_SHOT;
	r = parse_addresses(skb, 0, &p);
	if (r == FL_REASON_NONE && !p.family)
		r = FL_REASON_UNSUPPORTED_PROTOCOL;
	if (r != FL_REASON_NONE)
		return refuse(skb, &p, cfg, 0, r);

	/* An entry of its own, as a pod or node of the mesh: being inside some
	 * range is not enough, and nobody out there is this node. */
	source = remote_exact(p.family, p.saddr);
	if (!source || source->identity == FL_IDENTITY_UNKNOWN || (source->flags & FL_REMOTE_HOST))
		return refuse(skb, &p, cfg, 0, FL_REASON_UNKNOWN_SOURCE);

	local = local_find(&p);
	if (local)
		return deliver(skb, local);

	dest = remote_exact(p.family, p.daddr);
	if (dest && (dest->flags & FL_REMOTE_HOST)) {
		r = fl_host_verdict(skb);
		if (r == FL_REASON_HOST)
			return leave(skb, FL_HOOK_TUNNEL_INGRESS, r);
		return refuse(skb, &p, cfg, source->identity, r);
	}
	/* Never route what a peer sent us on to someone else. */
	return refuse(skb, &p, cfg, source->identity, FL_REASON_NOT_LOCAL);
}

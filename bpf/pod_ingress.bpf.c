//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Packets TO a pod: tc egress on the host side of its interface, whichever way
 * they came: from the tunnel, from this node, over the CNI's network. */
#include "flow.h"
#include "hook.h"
#include "related.h"

char _license[] SEC("license") = "GPL";

static __always_inline enum reason ingress_verdict(struct __sk_buff *skb, struct pod_ctx *c)
{
	__u32 ifindex = skb->ifindex;
	struct iface *iface = bpf_map_lookup_elem(&fl_ifaces, &ifindex);
	enum reason r;

	if (!iface)
		return FL_REASON_NO_ENDPOINT;
	c->subject = iface->identity;
	r = parse(skb, ETH_HLEN, &c->p);
	if (r != FL_REASON_NONE)
		return r;
	if (!c->p.family)
		return skb->protocol == bpf_htons(ETH_P_ARP) ? FL_REASON_NEIGHBOR :
							       FL_REASON_UNSUPPORTED_PROTOCOL;
	/* The tunnel spans no link: what claims to be of a neighbour's and came
	 * through it is another cluster posing as this pod's router. */
	if (c->p.kind == FL_PACKET_NEIGHBOR)
		return c->from_tunnel ? FL_REASON_INVALID_SOURCE : FL_REASON_NEIGHBOR;
	if (c->p.kind == FL_PACKET_ICMP_ERROR)
		return fl_related_verdict(skb, c);
	if (c->p.frag_first || c->p.frag_later) {
		r = fl_fragment_ports(&c->p);
		if (r != FL_REASON_NONE)
			return r;
	}
	return fl_flow_verdict(skb, c);
}

SEC("tc")
int fl_pod_ingress(struct __sk_buff *skb)
{
	const struct config *cfg = config_get();
	__u32 mark = skb->mark;
	enum reason r;
	struct pod_ctx c;

	/* Our marks are for us: nobody behind this hook shall see them. */
	if (mark == FL_MARK_TUNNEL || mark == FL_MARK_OWN)
		skb->mark = 0;
	/* Our own "too big" to the pod, made from a packet that it sent. */
	if (mark == FL_MARK_OWN)
		return leave(skb, FL_HOOK_POD_INGRESS, FL_REASON_RELATED);
	if (!cfg)
		return TC_ACT_SHOT;
	ctx_begin(&c, FL_HOOK_POD_INGRESS, FL_DIR_INGRESS, cfg);
	c.from_tunnel = mark == FL_MARK_TUNNEL;
	c.forwarded = skb->ingress_ifindex != 0;
	c.over_tunnel = c.forwarded && skb->ingress_ifindex == cfg->tunnel_ifindex;
	r = ingress_verdict(skb, &c);
	ctx_report(skb, &c, r);
	return leave(skb, FL_HOOK_POD_INGRESS, r);
}

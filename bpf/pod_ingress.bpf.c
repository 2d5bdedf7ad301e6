//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Packets TO a pod: tc egress on the host side of its interface, whichever way
 * they came: from the tunnel, from this node, over the CNI's network. */
#include "flow.h"
#include "hook.h"
#include "related.h"

char _license[] SEC("license") = "GPL";

static __always_inline bool listener_report(const struct packet *p)
{
	return p->icmp_type == ICMPV6_MLD_REPORT || p->icmp_type == ICMPV6_MLD_DONE ||
	       p->icmp_type == ICMPV6_MLD2_REPORT;
}

/* Bridges flood frames for addresses that they don't know to every pod. Those are
 * not this pod's, and must not touch the flows of another one. */
static __always_inline bool addressed(const struct pod_ctx *c, const struct iface *iface)
{
	const __u8 *to = c->p.daddr;

	if (c->p.family == AF_INET)
		return ((iface->flags & FL_IFACE_IP4) && addr_equal(AF_INET, to, iface->ip4)) ||
		       (to[0] & 0xf0) == 0xe0 || to[0] == 255; /* multicast, broadcast */
	return ((iface->flags & FL_IFACE_IP6) && addr_equal(AF_INET6, to, iface->ip6)) ||
	       to[0] == 0xff || addr_is_link_local(to);
}

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
	if (!c->p.family && skb->protocol == bpf_htons(ETH_P_ARP))
		return skb->len > FL_ARP_MAX ? FL_REASON_MALFORMED : FL_REASON_NEIGHBOR;
	if (!c->p.family)
		return FL_REASON_UNSUPPORTED_PROTOCOL;
	if (discovery_too_long(skb, &c->p))
		return FL_REASON_MALFORMED;
	/* The tunnel spans no link: what claims to be of a neighbour's and came
	 * through it is another cluster posing as this pod's router. */
	if (c->p.kind == FL_PACKET_NEIGHBOR && c->from_tunnel)
		return FL_REASON_INVALID_SOURCE;
	/* Other hosts' reports are for routers: to a pod they are what any packet
	 * is, or two pods could talk in them past policy. */
	if (c->p.kind == FL_PACKET_NEIGHBOR && !listener_report(&c->p))
		return FL_REASON_NEIGHBOR;
	if (!addressed(c, iface))
		return FL_REASON_NOT_ADDRESSED;
	if (c->p.kind == FL_PACKET_ICMP_ERROR)
		return fl_related_verdict(skb, c);
	/* The kernel forgets where an IPv6 datagram came from when it copies it into
	 * fragments: tracking is asked for all of them. */
	if (c->p.frag_first || c->p.frag_later)
		c->forwarded = true;
	if (c->p.frag_later) {
		r = fl_fragment_ports(&c->p);
		if (r != FL_REASON_NONE)
			return r;
	}
	return fl_fragment_keep(&c->p, fl_flow_verdict(skb, c));
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
	if (r != FL_REASON_NOT_ADDRESSED) /* nobody is interested in each of those */
		ctx_report(skb, &c, r);
	return leave(skb, FL_HOOK_POD_INGRESS, r);
}

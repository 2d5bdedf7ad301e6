//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Packets FROM a pod: tc ingress on the host side of its interface. The pod
 * must be who it says it is; its egress policy must allow the flow; and what
 * goes to another cluster goes through the tunnel or nowhere. */
#include "flow.h"

#include "checksum.h"
#include "hook.h"
#include "mss.h"
#include "related.h"
#include "toobig.h"

char _license[] SEC("license") = "GPL";

/* Offset of the sender's protocol address in an ARP packet. */
#define FL_ARP_SENDER_IP 14

/* Inlined it would take stack from all that follows. */
FL_GLOBAL int fl_pull(struct __sk_buff *skb, __u32 need)
{
	packet_pull(skb, need);
	return 0;
}

/* ARP may pass, but not in somebody else's name: on a shared bridge that would
 * draw other pods' packets here. A probe asks with the address zero. */
static __always_inline enum reason arp_verdict(struct __sk_buff *skb, const struct iface *iface)
{
	__be32 sender;

	if (skb->len > FL_ARP_MAX)
		return FL_REASON_MALFORMED;
	fl_pull(skb, FL_ARP_MAX);
	if (bpf_skb_load_bytes(skb, ETH_HLEN + FL_ARP_SENDER_IP, &sender, sizeof(sender)))
		return FL_REASON_MALFORMED;
	if (sender && (!(iface->flags & FL_IFACE_IP4) || sender != *(const __be32 *)iface->ip4))
		return FL_REASON_INVALID_SOURCE;
	return FL_REASON_NEIGHBOR;
}

/* Whether a link-local address is made of the hardware address of another pod
 * behind a bridge. */
static __always_inline bool anothers_link_local(const struct __sk_buff *skb, const __u8 *addr)
{
	const struct local *pod = bpf_map_lookup_elem(&fl_locals6, addr);

	return pod && pod->ifindex != skb->ifindex;
}

/* Whether a frame bears the hardware address of another pod or of the gateway. The
 * bridge would send theirs to this interface. A hardware address that is nobody's
 * may be used: virtual machines have several. */
FL_GLOBAL int fl_source_borrowed(struct __sk_buff *skb, const struct iface *iface)
{
	__u8 addr[16] = { 0xfe, 0x80, [11] = 0xff, [12] = 0xfe };
	__u8 mac[ETH_ALEN];

	if (!iface || !(iface->flags & FL_IFACE_BRIDGED))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_ALEN, mac, sizeof(mac)))
		return 1;
	if (!__builtin_memcmp(mac, iface->host_mac, sizeof(mac)))
		return 1;
	__builtin_memcpy(addr + 8, mac, 3);
	__builtin_memcpy(addr + 13, mac + 3, 3);
	addr[8] ^= 2;
	return anothers_link_local(skb, addr);
}

/* Whether a pod may call a link-local address its own: it isn't made of the hardware
 * address of another pod or of the gateway. */
static __always_inline bool may_claim(const struct __sk_buff *skb, const struct iface *iface, const __u8 *addr)
{
	const __u8 *mac = iface->host_mac;

	if ((iface->flags & FL_IFACE_BRIDGED) && addr[8] == (mac[0] ^ 2) && addr[9] == mac[1] &&
	    addr[10] == mac[2] && addr[11] == 0xff && addr[12] == 0xfe && addr[13] == mac[3] &&
	    addr[14] == mac[4] && addr[15] == mac[5])
		return false;
	return !anothers_link_local(skb, addr);
}

static __always_inline bool own_ip6(const struct iface *iface, const __u8 *addr)
{
	return (iface->flags & FL_IFACE_IP6) && addr_equal(AF_INET6, addr, iface->ip6);
}

/* Neighbours are on the link: its multicast, link-local addresses, this node and
 * its pods. What is sent further is an ordinary packet, whatever its type. */
static __always_inline bool to_neighbor(const struct pod_ctx *c)
{
	const struct remote *to;

	if (addr_is_link_multicast(c->p.daddr) || addr_is_link_local(c->p.daddr) ||
	    bpf_map_lookup_elem(&fl_locals6, c->p.daddr))
		return true;
	to = remote_exact(AF_INET6, c->p.daddr);
	return to && to->flags & FL_REMOTE_HOST;
}

/* Neighbour discovery likewise: asking is free, claiming somebody else's
 * address or playing the router is not. Queries for listeners are a router's. */
FL_GLOBAL int fl_neighbor_verdict(struct __sk_buff *skb, const struct pod_ctx *c)
{
	__u32 ifindex = skb->ifindex;
	const struct iface *iface = bpf_map_lookup_elem(&fl_ifaces, &ifindex);
	__u8 target[16];
	bool probe;

	if (!c || !iface)
		return FL_REASON_INVALID_SOURCE;
	if (!own_ip6(iface, c->p.saddr) && !addr_is_link_local(c->p.saddr) &&
	    !addr_is_unspecified(c->p.saddr))
		return FL_REASON_INVALID_SOURCE;
	if (c->p.icmp_type == NDISC_ROUTER_ADVERTISEMENT || c->p.icmp_type == NDISC_REDIRECT ||
	    c->p.icmp_type == ICMPV6_MLD_QUERY)
		return FL_REASON_INVALID_SOURCE;
	/* Neighbours keep the sender's hardware address beside its address, whatever
	 * it says; and who asks from :: keeps others from taking the target. */
	if (addr_is_link_local(c->p.saddr) && !may_claim(skb, iface, c->p.saddr))
		return FL_REASON_INVALID_SOURCE;
	probe = c->p.icmp_type == NDISC_NEIGHBOUR_SOLICITATION && addr_is_unspecified(c->p.saddr);
	if (c->p.icmp_type != NDISC_NEIGHBOUR_ADVERTISEMENT && !probe)
		return FL_REASON_NEIGHBOR;
	fl_pull(skb, c->p.l4 + FL_DISCOVERY_MAX);
	if (bpf_skb_load_bytes(skb, c->p.l4 + sizeof(struct icmphdr), target, sizeof(target)))
		return FL_REASON_MALFORMED;
	if (own_ip6(iface, target))
		return FL_REASON_NEIGHBOR;
	if (!addr_is_link_local(target) || !may_claim(skb, iface, target))
		return FL_REASON_INVALID_SOURCE;
	return probe || addr_equal(AF_INET6, target, c->p.saddr) ? FL_REASON_NEIGHBOR : FL_REASON_INVALID_SOURCE;
}

/* Identity goes by address, so it is worth exactly as much as this check. */
static __always_inline bool own_source(const struct pod_ctx *c, const struct iface *iface)
{
	if (c->p.family == AF_INET)
		return (iface->flags & FL_IFACE_IP4) &&
		       addr_equal(AF_INET, c->p.saddr, iface->ip4);
	return own_ip6(iface, c->p.saddr);
}

static __always_inline enum reason egress_verdict(struct __sk_buff *skb, struct pod_ctx *c)
{
	__u32 ifindex = skb->ifindex;
	struct iface *iface = bpf_map_lookup_elem(&fl_ifaces, &ifindex);
	enum reason r;

	if (!iface)
		return FL_REASON_NO_ENDPOINT;
	c->subject = iface->identity;
	if (fl_source_borrowed(skb, iface))
		return FL_REASON_INVALID_SOURCE;
	/* Pods have no VLANs; a tag would only carry a packet around somebody. */
	if (skb->vlan_present)
		return FL_REASON_UNSUPPORTED_PROTOCOL;
	r = parse(skb, ETH_HLEN, &c->p);
	if (r != FL_REASON_NONE)
		return r;
	if (fl_checksum_verdict(skb, &c->p))
		return FL_REASON_MALFORMED;
	if (!c->p.family)
		return skb->protocol == bpf_htons(ETH_P_ARP) ? arp_verdict(skb, iface) :
							       FL_REASON_UNSUPPORTED_PROTOCOL;
	if (discovery_too_long(skb, &c->p))
		return FL_REASON_MALFORMED;
	if (c->p.kind == FL_PACKET_NEIGHBOR && to_neighbor(c))
		return fl_neighbor_verdict(skb, c);
	if (!own_source(c, iface))
		return FL_REASON_INVALID_SOURCE;
	if (c->p.kind == FL_PACKET_ICMP_ERROR)
		return fl_related_verdict(skb, c);
	if (c->p.frag_later) {
		r = fl_fragment_ports(&c->p);
		if (r != FL_REASON_NONE)
			return r;
	}
	return fl_fragment_keep(&c->p, fl_flow_verdict(skb, c));
}

/* What stands between the packet and the tunnel. */
static __always_inline enum reason tunnel_verdict(struct __sk_buff *skb, const struct pod_ctx *c,
						  const struct config *cfg)
{
	__u32 index = c->peer, mtu = cfg->tunnel_mtu;
	struct peer *peer = bpf_map_lookup_elem(&fl_peers, &index);
	enum reason r = FL_REASON_NONE;

	/* Never bare: without keys for that node the packet goes nowhere. */
	if (!cfg->tunnel_ifindex || !c->peer || !peer || !(peer->flags & FL_PEER_READY))
		return FL_REASON_ENCRYPTION_NOT_READY;
	if (mtu && !fits(skb, &c->p, mtu))
		return FL_REASON_TOO_BIG;
	if (mtu && c->p.tcp_flags & TCP_SYN)
		r = fl_mss_clamp(skb, &c->p, mtu);
	return r == FL_REASON_NONE ? FL_REASON_TUNNELED : r;
}

SEC("tc")
int fl_pod_egress(struct __sk_buff *skb)
{
	const struct config *cfg = config_get();
	enum reason r;
	struct pod_ctx c;
	int action;

	if (!cfg)
		return TC_ACT_SHOT;
	ctx_begin(&c, FL_HOOK_POD_EGRESS, FL_DIR_EGRESS, cfg);
	r = egress_verdict(skb, &c);
	if (r < FL_REASON_FIRST_DROP && c.via_tunnel)
		r = tunnel_verdict(skb, &c, cfg);
	ctx_report(skb, &c, r);
	action = leave(skb, FL_HOOK_POD_EGRESS, r);
	/* Straight to the tunnel device, past the node's netfilter, so that no
	 * CNI's masquerading rewrites the source. */
	if (r == FL_REASON_TUNNELED)
		return bpf_redirect(cfg->tunnel_ifindex, 0);
	if (r == FL_REASON_TOO_BIG)
		return fl_too_big(skb, &c.p, cfg->tunnel_mtu);
	return action;
}

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Every number and structure shared with user space, once. The Go side is
 * generated from this file (types_gen.go): change it here, run go generate.
 *
 * Conventions, so that a dump of a map can be read:
 *   - addresses are byte arrays in network order, as netip.Addr.As4/As16 gives;
 *   - ports are numbers in host order;
 *   - times are ticks of 2^30 ns (about 1.07 s) of CLOCK_MONOTONIC_COARSE;
 *   - padding is explicit and zero.
 */
#ifndef FAIRLEAD_TYPES_H
#define FAIRLEAD_TYPES_H

#include "fairlead/kernel.h"

/* ---- numbers ---------------------------------------------------------- */

/* Identities below 256 are reserved; the rest are handed out by the mesh. */
enum reserved_identity {
	FL_IDENTITY_UNKNOWN = 0, /* nobody vouches for it: no allow, but every deny matches */
	FL_IDENTITY_HOST = 1, /* this node */
	FL_IDENTITY_WORLD = 2, /* no pod, node or block anyone the agent wrote */
};

/* Where a packet was seen. */
enum hook {
	FL_HOOK_NONE = 0,
	FL_HOOK_POD_EGRESS = 1,
	FL_HOOK_POD_INGRESS = 2,
	FL_HOOK_TUNNEL_INGRESS = 3,
	FL_HOOK_UPLINK_EGRESS = 4,
	FL_HOOK_SOCKET = 5,
	FL_HOOK_COUNT = 8, /* a power of two: the stride of fl_metrics */
} __attribute__((packed));

/* Which way a policy looks, from the pod it selects. */
enum direction {
	FL_DIR_NONE = 0,
	FL_DIR_EGRESS = 1,
	FL_DIR_INGRESS = 2,
} __attribute__((packed));

/* What a policy line says, and (the first four) what became of a flow. */
enum verdict {
	FL_VERDICT_NONE = 0,
	FL_VERDICT_ALLOW = 1,
	FL_VERDICT_DENY = 2,
	FL_VERDICT_AUDIT_DENY = 3, /* let through, reported as would-be denied */
	FL_VERDICT_PASS = 4, /* go on with the chunk of number rule_id */
	FL_VERDICT_AUDIT_ALLOW = 5, /* these two settle only what is reported */
	FL_VERDICT_AUDIT_PASS = 6,
} __attribute__((packed));

/* Why a packet went on or was dropped. Stable: dashboards and alerts use them,
 * so numbers are appended, never reused. Below 16: went on. */
enum reason {
	FL_REASON_NONE = 0,
	FL_REASON_FORWARDED = 1, /* left to the CNI's path */
	FL_REASON_TUNNELED = 2, /* handed to the tunnel device */
	FL_REASON_DELIVERED = 3, /* from the tunnel to a local pod */
	FL_REASON_SERVICE = 4, /* to a service's address, which kube-proxy translates */
	FL_REASON_HOST = 5, /* from this node, or to it and no rule that names it denies it */
	FL_REASON_AUDITED = 6, /* policy would deny, audit mode let it through */
	FL_REASON_NEIGHBOR = 7, /* ARP or IPv6 neighbour discovery */
	FL_REASON_TRANSLATED = 8, /* socket: service address → backend */
	FL_REASON_RELATED = 9, /* ICMP error about a known flow */

	FL_REASON_FIRST_DROP = 16, /* no packet carries this one itself */
	FL_REASON_POLICY_DENIED = 17, /* a rule denies it */
	FL_REASON_DEFAULT_DENIED = 18, /* isolated, and no rule allows it */
	FL_REASON_NO_ENDPOINT = 19, /* interface unknown to the agent */
	FL_REASON_INVALID_SOURCE = 20, /* not the pod's own address */
	FL_REASON_UNKNOWN_SOURCE = 21, /* nobody vouches for the source */
	FL_REASON_UNKNOWN_DESTINATION = 22, /* remote range, no such pod known */
	FL_REASON_ENCRYPTION_NOT_READY = 23, /* no tunnel to that node (yet) */
	FL_REASON_PLAINTEXT = 24, /* must come through the tunnel, did not */
	FL_REASON_PLAINTEXT_LEAK = 25, /* would leave the node unencrypted */
	FL_REASON_NOT_LOCAL = 26, /* from the tunnel, for nobody here */
	FL_REASON_UNSUPPORTED_PROTOCOL = 27, /* neither IPv4 nor IPv6 */
	FL_REASON_MALFORMED = 28, /* headers don't add up */
	FL_REASON_FRAGMENT = 29, /* later fragment, first one never seen, or dropped */
	FL_REASON_TOO_BIG = 30, /* beyond the tunnel's MTU; answered by ICMP */
	FL_REASON_NO_BACKEND = 31, /* the service has none: refused */
	FL_REASON_FLOW_TABLE = 32, /* the flow could not be remembered */
	FL_REASON_PACKET_EDIT = 33, /* the kernel refused a rewrite */
	FL_REASON_UNRELATED = 34, /* ICMP error about no flow of the pod's */
	FL_REASON_NO_POLICY = 35, /* the agent has written no policy for it (yet) */
	FL_REASON_NOT_ADDRESSED = 36, /* a frame that a bridge flooded: another pod's */
	FL_REASON_HOST_CLOSED = 37, /* from the tunnel to a port of this node itself */
	FL_REASON_NOT_OPENED = 38, /* mid-stream, of a connection nobody knows */
	FL_REASON_COUNT = 64, /* rows of fl_metrics per hook stride */
} __attribute__((packed));

enum iface_flags {
	FL_IFACE_IP4 = 1 << 0,
	FL_IFACE_IP6 = 1 << 1,
	FL_IFACE_BRIDGED = 1 << 2, /* a port of a bridge, which learns who is where */
};

/* Flags of an address in fl_ipcache4/6 and of a range in fl_cidr4/6. */
enum remote_flags {
	FL_REMOTE_TUNNEL = 1 << 0, /* send it through the tunnel */
	FL_REMOTE_REQUIRE_TUNNEL = 1 << 1, /* believe it only from the tunnel */
	FL_REMOTE_HOST = 1 << 2, /* an address of this node */
	FL_REMOTE_NODE = 1 << 3, /* another node of the mesh */
	FL_REMOTE_SERVICE = 1 << 4, /* ranges only: service addresses */
	/* Ranges only, of this cluster's pods: where nobody vouches for an address,
	 * nodes may have it too. Policy judges it as unknown. */
	FL_REMOTE_UNVOUCHED = 1 << 5,
};

enum peer_flags {
	FL_PEER_READY = 1 << 0, /* keys exchanged: packets leave encrypted */
};

enum ct_flags {
	FL_CT_BY_POD = 1 << 0, /* the pod opened it (else its peer did) */
	FL_CT_VIA_TUNNEL = 1 << 1, /* packets from the pod go into the tunnel */
	FL_CT_REQUIRE_TUNNEL = 1 << 2, /* packets to the pod must come out of it */
	FL_CT_AUDIT = 1 << 3, /* let through by audit mode only */
	FL_CT_DENIED = 1 << 4, /* was allowed, policy changed: cut both ways */
	FL_CT_REPLIED = 1 << 5, /* the other side has answered */
	FL_CT_FIN_POD = 1 << 6,
	FL_CT_FIN_PEER = 1 << 7,
	FL_CT_RST_POD = 1 << 8, /* reset by this side, which has sent nothing since */
	FL_CT_BY_POLICY = 1 << 9, /* a policy decided: group and class count */
	FL_CT_BY_DEFAULT = 1 << 10, /* no line did: rule_id is the subject's default */
	FL_CT_REPLACING = 1 << 11, /* a CPU is about to put another entry in its place */
	FL_CT_TRANSLATED = 1 << 12, /* the node stands for a client that it hides */
	FL_CT_RST_PEER = 1 << 14,
	FL_CT_BY_SERVICE = 1 << 13, /* allowed because all that the service leads to is */
};

enum subject_flags {
	FL_SUBJECT_ISOLATED = 1 << 0, /* what no line allows is denied */
	FL_SUBJECT_AUDIT = 1 << 1, /* the default deny only reports */
	FL_SUBJECT_BLOCKS = 1 << 2, /* lines name CIDRs: the address counts too */
	FL_SUBJECT_CLOSED = 1 << 3, /* the default deny is about its own node, too */
};

enum service_flags {
	FL_SERVICE_AFFINITY = 1 << 0, /* a client sticks to its backend */
	FL_SERVICE_POLICY_ONLY = 1 << 1, /* not translated here; says what it leads to */
};

enum event_flags {
	FL_EVENT_NEW = 1 << 0, /* first packet of a flow */
	FL_EVENT_REEVALUATED = 1 << 1, /* policy changed under a running flow */
	FL_EVENT_VIA_TUNNEL = 1 << 2,
};

enum affinity_kind {
	FL_AFFINITY_CLIENT = 1, /* client: network namespace cookie */
	FL_AFFINITY_SOCKET = 2, /* client: socket cookie */
};

/* skb->mark values, matched whole, that pass between our own programs while
 * a packet is redirected. They never leave the node and pods cannot set them:
 * the kernel clears the mark when a packet leaves a network namespace. */
enum mark {
	FL_MARK_TUNNEL = 0x0fa10001, /* came decrypted from the tunnel */
	FL_MARK_OWN = 0x0fa10002, /* made by us for the pod (ICMP too big) */
};

/* ---- configuration and endpoints -------------------------------------- */

/* fl_config. The two epochs are the first eight bytes, in this version and in
 * all to come: programs read both in one load, and an upgrade that replaces the
 * map alone reads the old policy_epoch to go on from it.
 *
 * Epochs are serial numbers (RFC 1982): they may wrap. The rows that an epoch
 * makes visible are written before it; both epochs move in one update. */
struct config {
	/* Names the policy in force; its subjects are in bank policy_epoch & 1.
	 * A flow judged at another epoch looks up its group and class again. */
	__u32 policy_epoch;
	/* Flows judged at an epoch before this one are judged in full: a range
	 * changed, or the number of a set, class or group got another meaning. */
	__u32 full_epoch;
	__u32 tunnel_ifindex; /* 0: there is none */
	__u32 tunnel_mtu;
	__u32 events_per_tick; /* per CPU; 0: no limit */
};

struct addr4 {
	__u8 addr[4];
};

struct addr6 {
	__u8 addr[16];
};

/* fl_ifaces: who is behind this interface. */
struct iface {
	__u32 identity;
	__u32 flags; /* iface_flags */
	__u8 ip4[4];
	__u8 ip6[16];
	__u8 pod_mac[6];
	__u8 host_mac[6];
};

/* fl_locals4/6: how to hand a packet to a pod of this node. Of a pod behind a
 * bridge, fl_locals6 also has the link-local address that its hardware address
 * makes (RFC 4291, appendix A): who has that hardware address. */
struct local {
	__u32 ifindex;
	__u8 pod_mac[6];
	__u8 host_mac[6];
};

/* fl_ipcache4/6 and fl_cidr4/6: who has an address and how to reach it. */
struct remote {
	__u32 identity;
	__u16 peer; /* index in fl_peers; 0: none */
	__u8 flags; /* remote_flags */
	__u8 pad;
};

struct cidr4 {
	__u32 prefixlen;
	__u8 addr[4];
};

struct cidr6 {
	__u32 prefixlen;
	__u8 addr[16];
};

struct peer {
	__u32 flags; /* peer_flags */
};

/* ---- flows ------------------------------------------------------------- */

/* From the pod's point of view, so that both directions of a flow are one
 * entry and one lookup. ICMP has the id and the type in place of ports, see
 * packet.h, and since these could be any two numbers, which way the flow's
 * questions go. */
struct ct4_key {
	__u8 pod[4];
	__u8 peer[4];
	__u16 pod_port;
	__u16 peer_port;
	__u8 proto;
	enum direction asks; /* NONE: it isn't ICMP */
	__u8 pad[2];
};

struct ct6_key {
	__u8 pod[16];
	__u8 peer[16];
	__u16 pod_port;
	__u16 peer_port;
	__u8 proto;
	enum direction asks;
	__u8 pad[2];
};

/* What every packet of a flow reads comes first: with many flows the entry's
 * second cache line is often not in the cache. */
struct ct_entry {
	__u32 last_seen; /* ticks */
	__u32 flags; /* ct_flags; u32 so that bits can be set atomically */
	__u32 epoch; /* policy_epoch the verdict belongs to */
	__u32 address_epoch; /* and the epoch of the peer's address; and of a hidden client's, added */
	__u32 subject; /* the pod's identity then */
	__u16 peer; /* index in fl_peers */
	enum reason reason; /* what packets of this flow are counted as */
	__u8 subject_flags; /* of the subject's row then */
	__u32 identity; /* the peer's identity then */
	__u32 rule_id;
	__u32 group; /* the subject's then */
	__u32 class; /* the peer's then */
	__u32 block; /* of the peer's address then; 0: none, or no line asked */
	__u32 block_class;
	__u16 client; /* of a translated flow: address_epoch_index() of the client */
	__u16 pad;
};

/* One fragmented datagram, so that later fragments find their ports. */
struct frag_key {
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 id;
	__u8 proto;
	__u8 family;
	__u8 pad[2];
};

struct frag_ports {
	__u16 sport;
	__u16 dport;
	__u8 icmp_type;
	__u8 icmp_role;
	__u8 pad[2];
};

#include "fairlead/types_policy.h"

/* fl_scratch: what a program needs while it judges a flow. Its calls have 512
 * bytes of stack between them. */
struct scratch {
	__u64 words[64];
};

/* ---- services ---------------------------------------------------------- */

/* A node port has the address zero: it is at every address of every node. */

struct service4_key {
	__u8 addr[4];
	__u16 port;
	__u8 proto;
	__u8 pad;
};

struct service6_key {
	__u8 addr[16];
	__u16 port;
	__u8 proto;
	__u8 pad;
};

struct service {
	__u32 id;
	__u32 backends; /* slots 0 … backends-1; 0: connections are refused */
	__u32 flags; /* service_flags */
	__u32 affinity_seconds;
};

struct slot_key {
	__u32 service;
	__u32 slot;
};

struct backend {
	__u8 addr[16]; /* IPv4: the first four bytes */
	__u32 id; /* stable for the backend's life: affinity goes by it */
	__u16 port;
	__u8 family; /* AF_INET or AF_INET6 */
	__u8 pad;
};

/* fl_sock_peer, kept with a connected socket: whom it asked for and whom it got. */
struct sock_peer {
	__u8 backend[16];
	__u8 service[16];
	__u16 backend_port;
	__u16 service_port;
	__u8 family; /* AF_UNSPEC: not translated */
	__u8 proto;
	__u8 pad[2];
};

/* fl_sock_rev: the same for datagrams to many: a socket that isn't connected. */
struct sock_rev_key {
	__u64 cookie;
	__u8 addr[16];
	__u16 port;
	__u8 proto;
	__u8 family;
	__u32 pad;
};

struct sock_rev {
	__u8 addr[16];
	__u16 port;
	__u8 family;
	__u8 pad;
	__u32 service;
};

struct affinity_key {
	__u64 client;
	__u32 service;
	__u32 kind; /* affinity_kind */
};

struct affinity {
	__u32 backend; /* backend.id */
	__u32 slot; /* where it was; verified before use */
	__u32 last_used; /* ticks */
	__u32 pad;
};

/* ---- counters and events ------------------------------------------------ */

/* fl_metrics and fl_rule_stats values, per CPU. */
struct counter {
	__u64 packets;
	__u64 bytes;
};

struct rule_key {
	__u32 rule_id;
	enum direction dir;
	enum verdict verdict;
	__u8 pad[2];
};

struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC, coarse */
	__u32 ifindex;
	__u32 src_identity;
	__u32 dst_identity;
	__u32 rule_id;
	__u32 epoch;
	__u32 count; /* packets this event stands for: itself + suppressed before */
	__u32 bytes; /* length of this packet */
	__u8 saddr[16]; /* IPv4: the first four bytes */
	__u8 daddr[16];
	__u16 sport; /* of ICMP: the id */
	__u16 dport; /* of ICMP: the type + 1; 0: not known */
	__u8 family; /* AF_INET, AF_INET6; 0: not IP */
	__u8 proto;
	enum hook hook;
	enum direction dir;
	enum verdict verdict;
	enum reason reason;
	__u8 tcp_flags;
	__u8 flags; /* event_flags */
};

struct event_key {
	__u32 subject;
	__u32 peer;
	__u16 dport;
	__u8 proto;
	enum direction dir;
	enum verdict verdict;
	enum reason reason;
	__u8 pad[2];
};

/* fl_event_seen: the last event of each kind. */
struct event_seen {
	struct event_key key;
	__u32 tick;
	__u32 suppressed;
};

/* fl_event_budget: how many events this CPU has sent in this tick. */
struct event_budget {
	__u32 tick;
	__u32 sent;
};

#endif

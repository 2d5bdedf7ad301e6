//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Services at the socket: a pod connects to a service's address and the kernel
 * is told a backend's instead, once per connection and not per packet. What
 * the application asks about its peer is answered with the service again. */
#include "hook.h"
#include "ipcache.h"
#include "packet.h"
#include "service.h"

char _license[] SEC("license") = "GPL";

#define FL_PROCEED 1
#define FL_REFUSE 0

/* How long a UDP socket that isn't connected keeps its backend: a request of
 * several datagrams must not be dealt out to several backends. */
#define FL_SOCKET_STICKY FL_TICKS(60)

/* ::ffff:0:0/96, the IPv4 addresses of IPv6 sockets. */
static __always_inline bool is_mapped(const struct bpf_sock_addr *ctx)
{
	return !ctx->user_ip6[0] && !ctx->user_ip6[1] && ctx->user_ip6[2] == bpf_htonl(0xffff);
}

static __always_inline void read_endpoint4(const struct bpf_sock_addr *ctx, struct endpoint *e)
{
	e->family = AF_INET;
	e->proto = ctx->protocol;
	e->port = bpf_ntohs(ctx->user_port);
	*(__u32 *)e->addr = ctx->user_ip4;
}

static __always_inline void read_endpoint6(const struct bpf_sock_addr *ctx, struct endpoint *e)
{
	__u32 *words = (__u32 *)e->addr;

	e->proto = ctx->protocol;
	e->port = bpf_ntohs(ctx->user_port);
	if (is_mapped(ctx)) {
		e->family = AF_INET;
		words[0] = ctx->user_ip6[3];
		return;
	}
	e->family = AF_INET6;
	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
}

static __always_inline void write_endpoint4(struct bpf_sock_addr *ctx, const struct endpoint *e)
{
	ctx->user_ip4 = *(const __u32 *)e->addr;
	ctx->user_port = bpf_htons(e->port);
}

static __always_inline void write_endpoint6(struct bpf_sock_addr *ctx, const struct endpoint *e)
{
	const __u32 *words = (const __u32 *)e->addr;

	ctx->user_port = bpf_htons(e->port);
	if (e->family == AF_INET) {
		ctx->user_ip6[3] = words[0]; /* the rest of ::ffff: stands */
		return;
	}
	ctx->user_ip6[0] = words[0];
	ctx->user_ip6[1] = words[1];
	ctx->user_ip6[2] = words[2];
	ctx->user_ip6[3] = words[3];
}

static __always_inline void rev_key(struct bpf_sock_addr *ctx, const struct endpoint *e,
				    struct sock_rev_key *k)
{
	k->cookie = bpf_get_socket_cookie(ctx);
	__builtin_memcpy(k->addr, e->addr, 16);
	k->port = e->port;
	k->proto = e->proto;
	k->family = e->family;
}

/* Remembers what the application asked for, to answer it later. Losing this
 * loses an answer's face, not a packet, so nothing is refused over it.
 *
 * A connected socket has one peer, kept with the socket itself: it costs half
 * of an LRU's insert, is never pushed out and goes when the socket goes. */
static __always_inline void remember_peer(struct bpf_sock_addr *ctx, const struct endpoint *service,
					  const struct endpoint *backend)
{
	void *sk = (void *)(long)ctx->sk;
	struct sock_peer *peer;

	if (!sk)
		return;
	peer = bpf_sk_storage_get(&fl_sock_peer, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!peer)
		return;
	__builtin_memcpy(peer->backend, backend->addr, 16);
	__builtin_memcpy(peer->service, service->addr, 16);
	peer->backend_port = backend->port;
	peer->service_port = service->port;
	peer->family = service->family;
	peer->proto = service->proto;
}

/* A socket that isn't connected may talk to many. */
static __always_inline void remember_datagram(struct bpf_sock_addr *ctx, const struct endpoint *service,
					      const struct endpoint *backend, __u32 id)
{
	struct sock_rev v = { .port = service->port, .family = service->family, .service = id };
	struct sock_rev *known;
	struct sock_rev_key k = {};

	rev_key(ctx, backend, &k);
	__builtin_memcpy(v.addr, service->addr, 16);
	/* One datagram after another finds it written already. */
	known = bpf_map_lookup_elem(&fl_sock_rev, &k);
	if (known && known->service == id && known->port == v.port && known->family == v.family)
		return;
	bpf_map_update_elem(&fl_sock_rev, &k, &v, BPF_ANY);
}

/* The service at an endpoint. A node port is at every address of this cluster's
 * nodes: translated here it reaches the backend as what it is, the caller's own
 * connection, and not as one of the node that kube-proxy would hide it behind.
 *
 * A datagram to a node's address may as well be an answer to that node, from the
 * port that asked. Those to node ports are left to kube-proxy. */
static __always_inline struct service *service_at(const struct endpoint *to, bool datagram)
{
	struct endpoint port = { .port = to->port, .family = to->family, .proto = to->proto };
	struct service *s;
	struct remote *r;

	/* Node ports are kept at that address; applications mean their own host. */
	if (addr_is_unspecified(to->addr))
		return NULL;
	s = service_find(to);
	if (s || datagram)
		return s;
	r = remote_exact(to->family, to->addr);
	if (!r || !node_of_ours(r))
		return NULL;
	return service_find(&port);
}

/* Turns the service's endpoint into a backend's. Returns NONE when it is no
 * service's, TRANSLATED, or NO_BACKEND. */
static __always_inline enum reason translate(struct bpf_sock_addr *ctx, struct endpoint *to, bool datagram)
{
	struct affinity_key client = {}, *sticky = NULL;
	__u32 lifetime = FL_SOCKET_STICKY;
	struct endpoint asked = *to;
	struct service *s;
	struct backend *b;

	if (to->proto != IPPROTO_TCP && to->proto != IPPROTO_UDP)
		return FL_REASON_NONE;
	s = service_at(to, datagram);
	if (!s || s->flags & FL_SERVICE_POLICY_ONLY)
		return FL_REASON_NONE;
	client.service = s->id;
	if (s->flags & FL_SERVICE_AFFINITY) {
		client.kind = FL_AFFINITY_CLIENT; /* a pod is a client: one namespace */
		client.client = bpf_get_netns_cookie(ctx);
		lifetime = ((__u64)s->affinity_seconds * 1000000000ULL) >> FL_TICK_SHIFT;
		sticky = &client;
	} else if (datagram) {
		client.kind = FL_AFFINITY_SOCKET;
		client.client = bpf_get_socket_cookie(ctx);
		sticky = &client;
	}
	b = backend_choose(s, to->family, sticky, lifetime);
	if (!b)
		return FL_REASON_NO_BACKEND;
	__builtin_memcpy(to->addr, b->addr, 16);
	to->port = b->port;
	if (datagram)
		remember_datagram(ctx, &asked, to, s->id);
	else
		remember_peer(ctx, &asked, to);
	return FL_REASON_TRANSLATED;
}

static __always_inline bool peer_of(struct bpf_sock_addr *ctx, struct endpoint *from)
{
	void *sk = (void *)(long)ctx->sk;
	struct sock_peer *peer = sk ? bpf_sk_storage_get(&fl_sock_peer, sk, NULL, 0) : NULL;

	/* The socket may be connected to something else by now. */
	if (!peer || peer->family != from->family || peer->backend_port != from->port ||
	    !addr_equal(from->family, peer->backend, from->addr))
		return false;
	__builtin_memcpy(from->addr, peer->service, 16);
	from->port = peer->service_port;
	return true;
}

static __always_inline bool datagram_of(struct bpf_sock_addr *ctx, struct endpoint *from)
{
	struct sock_rev_key k = {};
	struct sock_rev *v;

	if (from->proto != IPPROTO_UDP)
		return false;
	rev_key(ctx, from, &k);
	v = bpf_map_lookup_elem(&fl_sock_rev, &k);
	if (!v || v->family != from->family)
		return false;
	__builtin_memcpy(from->addr, v->addr, 16);
	from->port = v->port;
	return true;
}

/* The service behind a backend's endpoint, for this socket. */
static __always_inline bool translate_back(struct bpf_sock_addr *ctx, struct endpoint *from)
{
	return peer_of(ctx, from) || datagram_of(ctx, from);
}

/* Refused as a closed port is, at once and whatever the protocol: without a
 * backend there is nobody to wait for. */
static __always_inline int refuse(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return FL_REFUSE;
}

static __always_inline int forward4(struct bpf_sock_addr *ctx, bool datagram)
{
	struct endpoint to = {};
	enum reason r;

	read_endpoint4(ctx, &to);
	r = translate(ctx, &to, datagram);
	if (r == FL_REASON_NONE)
		return FL_PROCEED;
	count(FL_HOOK_SOCKET, r, 0);
	if (r == FL_REASON_NO_BACKEND)
		return refuse();
	write_endpoint4(ctx, &to);
	return FL_PROCEED;
}

static __always_inline int forward6(struct bpf_sock_addr *ctx, bool datagram)
{
	struct endpoint to = {};
	enum reason r;

	read_endpoint6(ctx, &to);
	r = translate(ctx, &to, datagram);
	if (r == FL_REASON_NONE)
		return FL_PROCEED;
	count(FL_HOOK_SOCKET, r, 0);
	if (r == FL_REASON_NO_BACKEND)
		return refuse();
	write_endpoint6(ctx, &to);
	return FL_PROCEED;
}

static __always_inline int reverse4(struct bpf_sock_addr *ctx)
{
	struct endpoint from = {};

	read_endpoint4(ctx, &from);
	if (translate_back(ctx, &from))
		write_endpoint4(ctx, &from);
	return FL_PROCEED;
}

static __always_inline int reverse6(struct bpf_sock_addr *ctx)
{
	struct endpoint from = {};

	read_endpoint6(ctx, &from);
	if (translate_back(ctx, &from))
		write_endpoint6(ctx, &from);
	return FL_PROCEED;
}

SEC("cgroup/connect4")
int fl_connect4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, false);
}

SEC("cgroup/connect6")
int fl_connect6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, false);
}

SEC("cgroup/sendmsg4")
int fl_sendmsg4(struct bpf_sock_addr *ctx)
{
	return forward4(ctx, true);
}

SEC("cgroup/sendmsg6")
int fl_sendmsg6(struct bpf_sock_addr *ctx)
{
	return forward6(ctx, true);
}

SEC("cgroup/recvmsg4")
int fl_recvmsg4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/recvmsg6")
int fl_recvmsg6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}

SEC("cgroup/getpeername4")
int fl_getpeername4(struct bpf_sock_addr *ctx)
{
	return reverse4(ctx);
}

SEC("cgroup/getpeername6")
int fl_getpeername6(struct bpf_sock_addr *ctx)
{
	return reverse6(ctx);
}

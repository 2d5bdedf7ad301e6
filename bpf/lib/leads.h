/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Egress to the address of a service that was not translated at the socket: raw
 * sockets, SCTP, virtual machines, node ports, load balancers. kube-proxy chooses
 * the backend after this program, so all that it may choose must be allowed. */
#ifndef FAIRLEAD_LEADS_H
#define FAIRLEAD_LEADS_H

#include "policy.h"

#include "context.h"
#include "ipcache.h"
#include "service.h"

/* A service with more backends is judged as one that nobody knows. */
#define FL_LEADS_MAX 256

/* fl_scratch's part of this. */
struct leads {
	struct policy_query q; /* of the pod; peer, address and port are each backend's */
	struct decision worst; /* a denial, else an audited one, else an allow */
	struct decision one;
	struct scan scan;
	__u32 service; /* id; 0: no such service */
	__u32 backends; /* 0: none */
	__u32 host_service; /* of the host port at this node's address, beside the node */
	__u32 host_backends;
	__u8 family;
	__u8 unknown; /* a backend is missing, or has an address of nobody */
	__u8 host_port; /* there is one */
	__u8 pad;
};

/* Adds the verdict about one more peer. Returns true when the sum is final. */
static __always_inline bool leads_add(struct leads *l)
{
	__builtin_memset(&l->one, 0, sizeof(l->one));
	fl_policy_decide(&l->q, &l->one, &l->scan);
	if (l->one.verdict == FL_VERDICT_DENY || l->worst.verdict == FL_VERDICT_NONE ||
	    (l->one.verdict == FL_VERDICT_AUDIT_DENY && l->worst.verdict == FL_VERDICT_ALLOW))
		l->worst = l->one;
	return l->worst.verdict == FL_VERDICT_DENY;
}

/* The same for the backend whose address and port the query has. */
static __always_inline bool leads_add_backend(struct leads *l)
{
	struct remote r = {};

	remote_lookup(l->family, l->q.addr, &r);
	l->q.peer = r.identity;
	return leads_add(l);
}

/* For bpf_loop, whose context must be on the stack. */
struct leads_loop {
	struct leads *l;
};

static long leads_backend(__u32 slot, struct leads_loop *loop)
{
	struct leads *l = loop->l;
	struct backend *b = slot_get(l->service, slot, l->family);

	if (!b) { /* between the agent's writes */
		l->unknown = true;
		return 1;
	}
	l->q.dport = b->port;
	__builtin_memcpy(l->q.addr, b->addr, 16);
	return leads_add_backend(l) ? 1 : 0;
}

/* Judges by the one backend that the query names. Inlined, it would take stack
 * from the calls below fl_judge. */
FL_GLOBAL int fl_leads_chosen(struct leads *l)
{
	if (l)
		leads_add_backend(l);
	return 0;
}

/* Judges by the peer that the query names, and by the node. */
FL_GLOBAL int fl_leads_group(struct leads *l)
{
	if (l && !leads_add(l)) {
		l->q.peer = FL_IDENTITY_HOST;
		leads_add(l);
	}
	return 0;
}

static __always_inline void leads_begin(struct leads *l)
{
	__builtin_memset(&l->worst, 0, sizeof(l->worst));
	l->family = l->q.family;
}

/* Judges by all that the service leads to. */
static __always_inline void leads_judge(struct leads *l)
{
	struct leads_loop loop = { .l = l };

	l->unknown = !l->backends || l->backends > FL_LEADS_MAX;
	if (!l->unknown)
		bpf_loop(l->backends, leads_backend, &loop, 0);
	if (l->worst.verdict == FL_VERDICT_NONE || (l->unknown && l->worst.verdict != FL_VERDICT_DENY)) {
		l->q.peer = FL_IDENTITY_UNKNOWN;
		leads_add(l);
	}
}

/* Judges by what a host port of this node leads to, and by the node: whether
 * anything translates it, nobody here knows. The query names the node. */
static __always_inline void leads_judge_host(struct leads *l)
{
	__u32 service = l->service, backends = l->backends;

	leads_add(l);
	l->service = l->host_service;
	l->backends = l->host_backends;
	leads_judge(l);
	l->service = service;
	l->backends = backends;
}

/* This node's host ports are filed under loopback's address. */
static __always_inline struct service *host_port_find(struct endpoint *to)
{
	bool v4 = to->family == AF_INET;

	__builtin_memset(to->addr, 0, sizeof(to->addr));
	to->addr[0] = v4 ? 127 : 0;
	to->addr[v4 ? 3 : 15] = 1;
	return service_find(to);
}

/* Finds the service at the address that the pod sends to. Node ports are at
 * addresses of this cluster's nodes, host ports at each that this node has. Returns
 * 0 if there is none. */
FL_GLOBAL int fl_leads_find(const struct pod_ctx *c, __u32 port, const struct remote *r, struct leads *l)
{
	struct endpoint to = { .port = port };
	struct service *svc, *host;

	if (!c || !r || !l)
		return 0;
	to.family = c->p.family;
	to.proto = c->p.proto;
	__builtin_memcpy(to.addr, ctx_peer_addr(c), 16);
	svc = service_find(&to);
	if (!svc && node_of_ours(r)) {
		__builtin_memset(to.addr, 0, sizeof(to.addr));
		svc = service_find(&to);
	}
	l->service = svc ? svc->id : 0;
	l->backends = svc ? svc->backends : 0;
	l->host_port = false;
	if (r->flags & FL_REMOTE_HOST) {
		host = host_port_find(&to);
		if (host) {
			l->host_port = true;
			l->host_service = host->id;
			l->host_backends = host->backends;
			return 1;
		}
	}
	return !!svc;
}

#endif

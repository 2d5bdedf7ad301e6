/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Egress to the address of a service that was not translated at the socket: raw
 * sockets, SCTP, virtual machines, node ports, load balancers. kube-proxy chooses
 * the backend after this program, so all that it may choose must be allowed. */
#ifndef FAIRLEAD_LEADS_H
#define FAIRLEAD_LEADS_H

#include "policy.h"

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
	__u32 service;
	__u8 family;
	__u8 unknown; /* a backend is missing, or has an address of nobody */
	__u8 pad[2];
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

/* For bpf_loop, whose context must be on the stack. */
struct leads_loop {
	struct leads *l;
};

static long leads_backend(__u32 slot, struct leads_loop *loop)
{
	struct leads *l = loop->l;
	struct remote r = {};
	struct backend *b = slot_get(l->service, slot, l->family);

	if (!b) { /* between the agent's writes */
		l->unknown = true;
		return 1;
	}
	remote_lookup(l->family, b->addr, &r);
	if (r.flags & FL_REMOTE_HOST) {
		if (l->worst.verdict == FL_VERDICT_NONE)
			l->worst.verdict = FL_VERDICT_ALLOW;
		return 0;
	}
	l->q.peer = r.identity;
	l->q.dport = b->port;
	__builtin_memcpy(l->q.addr, b->addr, 16);
	return leads_add(l) ? 1 : 0;
}

/* Judges by what a service leads to; NULL: nobody knows what that is. */
static __always_inline void leads_judge(struct leads *l, const struct service *svc)
{
	struct leads_loop loop = { .l = l };
	__u32 backends = svc ? svc->backends : 0;

	__builtin_memset(&l->worst, 0, sizeof(l->worst));
	l->unknown = !backends || backends > FL_LEADS_MAX;
	l->family = l->q.family;
	if (svc)
		l->service = svc->id;
	if (!l->unknown)
		bpf_loop(backends, leads_backend, &loop, 0);
	if (l->worst.verdict == FL_VERDICT_NONE || (l->unknown && l->worst.verdict != FL_VERDICT_DENY)) {
		l->q.peer = FL_IDENTITY_UNKNOWN;
		leads_add(l);
	}
}

/* The service at an address that the pod sends to. Node ports are at addresses of
 * this cluster's nodes. */
static __always_inline struct service *leads_find(const struct packet *p, __u16 port, const __u8 *addr,
						  const struct remote *r)
{
	struct endpoint to = { .family = p->family, .proto = p->proto, .port = port };
	struct service *svc;

	if (p->family == AF_INET)
		*(__u32 *)to.addr = *(const __u32 *)addr;
	else
		__builtin_memcpy(to.addr, addr, 16);
	svc = service_find(&to);
	if (svc || !node_of_ours(r))
		return svc;
	__builtin_memset(to.addr, 0, sizeof(to.addr));
	return service_find(&to);
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* From a service's address to one of its backends. */
#ifndef FAIRLEAD_SERVICE_H
#define FAIRLEAD_SERVICE_H

#include "clock.h"
#include "fairlead/maps.h"
#include <bpf/bpf_endian.h>

/* What a socket call or a packet names: a family, an address, a port. An IPv4 address in
 * IPv6 clothes (::ffff:a.b.c.d) is IPv4 here. */
struct endpoint {
	__u8 addr[16] __attribute__((aligned(8))); /* IPv4: the first four bytes */
	__u16 port;
	__u8 family;
	__u8 proto;
};

static __always_inline struct service *service_find(const struct endpoint *to)
{
	if (to->family == AF_INET) {
		struct service4_key k = { .port = to->port, .proto = to->proto };

		__builtin_memcpy(k.addr, to->addr, 4);
		return bpf_map_lookup_elem(&fl_services4, &k);
	}
	struct service6_key k = { .port = to->port, .proto = to->proto };

	__builtin_memcpy(k.addr, to->addr, 16);
	return bpf_map_lookup_elem(&fl_services6, &k);
}

/* A backend the caller can reach: a v4 socket can't talk to a v6 address. */
static __always_inline struct backend *slot_get(__u32 service, __u32 slot, __u8 family)
{
	struct slot_key k = { .service = service, .slot = slot };
	struct backend *b = bpf_map_lookup_elem(&fl_slots, &k);

	return b && b->family == family ? b : NULL;
}

/* Any backend. Between the agent's writes the chosen slot may not exist for a
 * moment; the first one does as long as the service has any. */
static __always_inline struct backend *backend_random(const struct service *s, __u8 family,
						      __u32 *slot)
{
	struct backend *b;

	if (!s->backends)
		return NULL;
	*slot = bpf_get_prandom_u32() % s->backends;
	b = slot_get(s->id, *slot, family);
	if (b)
		return b;
	*slot = 0;
	return slot_get(s->id, 0, family);
}

/* The backend this client had, as long as the service still has it: the slot
 * must hold the same backend, not just any. A backend that moved to another
 * slot is searched for among the first few, then let go. */
#define FL_AFFINITY_SEARCH 16

static __always_inline struct backend *backend_sticky(const struct service *s, __u8 family,
						      struct affinity *a, __u32 lifetime, __u32 now)
{
	struct backend *b;

	if (now - a->last_used > lifetime)
		return NULL;
	if (a->slot < s->backends) {
		b = slot_get(s->id, a->slot, family);
		if (b && b->id == a->backend)
			return b;
	}
	for (__u32 slot = 0; slot < FL_AFFINITY_SEARCH && slot < s->backends; slot++) {
		b = slot_get(s->id, slot, family);
		if (b && b->id == a->backend) {
			a->slot = slot;
			return b;
		}
	}
	return NULL;
}

/* Chooses a backend; with a client, the same one again for as long as it was
 * used within lifetime ticks. */
static __always_inline struct backend *backend_choose(const struct service *s, __u8 family,
						      const struct affinity_key *client,
						      __u32 lifetime)
{
	struct affinity fresh = {}, *known;
	__u32 now, slot = 0;
	struct backend *b;

	if (!client)
		return backend_random(s, family, &slot);
	now = now_ticks();
	known = bpf_map_lookup_elem(&fl_affinity, client);
	if (known) {
		b = backend_sticky(s, family, known, lifetime, now);
		if (b) {
			known->last_used = now;
			return b;
		}
	}
	b = backend_random(s, family, &slot);
	if (!b)
		return NULL;
	fresh.backend = b->id;
	fresh.slot = slot;
	fresh.last_used = now;
	bpf_map_update_elem(&fl_affinity, client, &fresh, BPF_ANY);
	return b;
}

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* What people get to see: new flows and drops, never each packet. Equal events
 * are folded into one a tick, which carries the number of those it stands for;
 * a budget per CPU bounds what a flood of unequal ones costs. */
#ifndef FAIRLEAD_EVENTS_H
#define FAIRLEAD_EVENTS_H

#include "clock.h"
#include "fairlead/maps.h"
#include "packet.h"
#include "rows.h"

/* A reader woken for each record makes a drop fifty times dearer. The agent
 * polls; it is only woken when a quarter of the ring has filled up. */
#define FL_EVENTS_WAKEUP_BYTES (256 << 10)

struct report {
	__u32 subject; /* the pod's identity */
	__u32 peer; /* who is on the other side */
	__u32 rule_id;
	__u32 epoch;
	__u32 now; /* ticks */
	__u32 events_per_tick;
	enum hook hook;
	enum direction packet_dir; /* which way this packet goes */
	enum direction dir; /* of the policy that decided */
	enum verdict verdict;
	enum reason reason;
	__u8 flags; /* event_flags */
	__u8 pad[2];
	__u32 stands_for; /* packets folded before, besides this one */
};

/* The key in words, for the verifier's sake aligned. */
union event_words {
	struct event_key key;
	__u64 word[2];
};

_Static_assert(sizeof(struct event_key) == sizeof(union event_words), "all of it is compared");

static __always_inline bool event_same(const struct event_seen *seen, const union event_words *k)
{
	const __u64 *word = (const __u64 *)seen;

	return word[0] == k->word[0] && word[1] == k->word[1];
}

/* The key's row: one of two neighbours, the one that has been quiet for longer
 * if neither is the key's yet. */
static __always_inline struct event_seen *event_row(const union event_words *k)
{
	__u32 index = rows_index(rows_hash(k->word[0], k->word[1], 0), FL_EVENT_ROWS), next = index ^ 1;
	struct event_seen *one = bpf_map_lookup_elem(&fl_event_seen, &index);
	struct event_seen *two = bpf_map_lookup_elem(&fl_event_seen, &next);

	if (!one || !two)
		return one;
	if (event_same(one, k))
		return one;
	if (event_same(two, k) || rows_older(two->tick, one->tick))
		return two;
	return one;
}

/* Returns how many packets this event stands for; 0: folded into a later one. */
static __always_inline __u32 event_fold(struct event_seen *seen, const union event_words *k,
					const struct report *r)
{
	__u32 count = 1 + r->stands_for;

	if (!event_same(seen, k)) {
		*seen = (struct event_seen){ .key = k->key, .tick = r->now };
		return count;
	}
	if (seen->tick == r->now) {
		seen->suppressed += count;
		return 0;
	}
	count += seen->suppressed;
	seen->suppressed = 0;
	seen->tick = r->now;
	return count;
}

static __always_inline bool event_within_budget(const struct report *r)
{
	__u32 zero = 0;
	struct event_budget *b;

	if (!r->events_per_tick)
		return true;
	b = bpf_map_lookup_elem(&fl_event_budget, &zero);
	if (!b)
		return false;
	if (b->tick != r->now) {
		b->tick = r->now;
		b->sent = 0;
	}
	return b->sent++ < r->events_per_tick;
}

FL_GLOBAL int fl_event_send(struct __sk_buff *skb, const struct packet *p, const struct report *r)
{
	union event_words words = {};
	struct event_key *k = &words.key;
	struct event_seen *seen;
	struct event *e;
	__u16 sport, dport;
	__u32 count;
	bool wake;

	if (!p || !r)
		return 0;
	sport = p->sport;
	dport = p->dport;
	k->subject = r->subject;
	k->peer = r->peer;
	if (p->icmp_role == FL_ICMP_ANSWERS) {
		sport = p->dport;
		dport = p->icmp_type + 1;
	}
	k->dport = p->icmp_role || r->packet_dir == r->dir ? dport : sport;
	k->proto = p->proto;
	k->dir = r->dir;
	k->verdict = r->verdict;
	k->reason = r->reason;
	seen = event_row(&words);
	count = seen ? event_fold(seen, &words, r) : 1 + r->stands_for;
	if (!count)
		return 0;
	/* A slow reader or a flood loses events, never packets or counts. */
	e = event_within_budget(r) ? bpf_ringbuf_reserve(&fl_events, sizeof(*e), 0) : NULL;
	if (!e) {
		if (seen) /* the next one shall stand for it */
			seen->suppressed += count;
		return 0;
	}
	e->time_ns = bpf_ktime_get_coarse_ns();
	e->ifindex = skb->ifindex;
	e->src_identity = r->packet_dir == FL_DIR_EGRESS ? r->subject : r->peer;
	e->dst_identity = r->packet_dir == FL_DIR_EGRESS ? r->peer : r->subject;
	e->rule_id = r->rule_id;
	e->epoch = r->epoch;
	e->count = count;
	e->bytes = skb->len;
	__builtin_memcpy(e->saddr, p->saddr, 16);
	__builtin_memcpy(e->daddr, p->daddr, 16);
	e->sport = sport;
	e->dport = dport;
	e->family = p->family;
	e->proto = p->proto;
	e->hook = r->hook;
	e->dir = r->dir;
	e->verdict = r->verdict;
	e->reason = r->reason;
	e->tcp_flags = p->tcp_flags;
	e->flags = r->flags;
	wake = bpf_ringbuf_query(&fl_events, BPF_RB_AVAIL_DATA) >= FL_EVENTS_WAKEUP_BYTES;
	bpf_ringbuf_submit(e, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	return 0;
}

#endif

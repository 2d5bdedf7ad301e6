/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Every map, once: all objects include this, so all have the same definition,
 * and user space creates each map one time and hands it to every object.
 *
 * Sizes are defaults; the agent may choose others when it creates a map.
 * Hashes that the agent fills are not preallocated: a small cluster pays for
 * what it has. LRU maps are written by packets and are preallocated. What may
 * be forgotten at any moment (fl_denied, fl_event_seen) is an array that a hash
 * indexes: its insert touches one cache line, an LRU's about six. */
#ifndef FAIRLEAD_MAPS_H
#define FAIRLEAD_MAPS_H

#include "fairlead/types.h"
#include <bpf/bpf_helpers.h>

#define FL_MAP(name_, type_, key_, value_, entries_, flags_)     \
	struct {                                                  \
		__uint(type, type_);                              \
		__uint(max_entries, entries_);                    \
		__uint(map_flags, flags_);                        \
		__type(key, key_);                                \
		__type(value, value_);                            \
	} name_ SEC(".maps")

#define FL_HASH(name_, key_, value_, entries_) \
	FL_MAP(name_, BPF_MAP_TYPE_HASH, key_, value_, entries_, BPF_F_NO_PREALLOC)
#define FL_LRU(name_, key_, value_, entries_) \
	FL_MAP(name_, BPF_MAP_TYPE_LRU_HASH, key_, value_, entries_, 0)
#define FL_LPM(name_, key_, value_, entries_) \
	FL_MAP(name_, BPF_MAP_TYPE_LPM_TRIE, key_, value_, entries_, BPF_F_NO_PREALLOC)

FL_MAP(fl_config, BPF_MAP_TYPE_ARRAY, __u32, struct config, 1, 0);

FL_HASH(fl_ifaces, __u32, struct iface, 4096);
FL_HASH(fl_locals4, struct addr4, struct local, 4096);
FL_HASH(fl_locals6, struct addr6, struct local, 4096);

FL_HASH(fl_ipcache4, struct addr4, struct remote, 524288);
FL_HASH(fl_ipcache6, struct addr6, struct remote, 524288);
FL_LPM(fl_cidr4, struct cidr4, struct remote, 65536);
FL_LPM(fl_cidr6, struct cidr6, struct remote, 65536);
/* CIDRs that policies name, each with the identity that stands for it. Who has
 * an address doesn't matter here: blocks match pods, nodes and the world. */
FL_LPM(fl_blocks4, struct cidr4, __u32, 65536);
FL_LPM(fl_blocks6, struct cidr6, __u32, 65536);
/* Ranges whose packets must not leave the node in the clear: 1, or 0 for what
 * is exempt inside one, as a node's address. Every packet of the node is looked
 * up here, so it is kept small. */
FL_LPM(fl_guard4, struct cidr4, __u32, 65536);
FL_LPM(fl_guard6, struct cidr6, __u32, 65536);
/* As many as a 16-bit index can name, so that a lookup never misses. */
FL_MAP(fl_peers, BPF_MAP_TYPE_ARRAY, __u32, struct peer, 65536, 0);

FL_LRU(fl_ct4, struct ct4_key, struct ct_entry, 131072);
FL_LRU(fl_ct6, struct ct6_key, struct ct_entry, 65536);
FL_LRU(fl_frags, struct frag_key, struct frag_ports, 8192);

FL_HASH(fl_subjects, struct subject_key, struct subject, 65536);
FL_HASH(fl_groups, struct group_key, struct group_chunk, 65536);
FL_HASH(fl_identities, __u32, struct identity_class, 262144);
FL_MAP(fl_classes, BPF_MAP_TYPE_ARRAY, __u32, struct class_sets, 16384, 0);
/* By which selector each bit of class_sets was given away, as a hash: what the
 * agent remembers over a restart. No program reads it. */
FL_MAP(fl_sets, BPF_MAP_TYPE_ARRAY, __u32, __u64, FL_SET_COUNT, 0);
/* Raised when a row of fl_ipcache4/6 changes; index: address_epoch_index(). */
FL_MAP(fl_address_epochs, BPF_MAP_TYPE_ARRAY, __u32, __u32, FL_ADDRESS_EPOCHS, 0);
/* Nothing looks into it: an update from user space returns when every program
 * that was running has ended. See Maps.Fence. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32);
	});
} fl_fence SEC(".maps");

/* Of one CPU: programs on the same CPU don't interrupt each other. */
FL_MAP(fl_scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct scratch, 1, 0);

FL_MAP(fl_denied, BPF_MAP_TYPE_ARRAY, __u32, struct denied, FL_DENIED_ROWS, 0);

FL_HASH(fl_services4, struct service4_key, struct service, 65536);
FL_HASH(fl_services6, struct service6_key, struct service, 65536);
FL_HASH(fl_slots, struct slot_key, struct backend, 262144);
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sock_peer);
} fl_sock_peer SEC(".maps");
FL_LRU(fl_sock_rev, struct sock_rev_key, struct sock_rev, 65536);
FL_LRU(fl_affinity, struct affinity_key, struct affinity, 65536);

/* Index: reason * FL_HOOK_COUNT + hook. */
FL_MAP(fl_metrics, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counter,
       FL_REASON_COUNT * FL_HOOK_COUNT, 0);
FL_MAP(fl_rule_stats, BPF_MAP_TYPE_LRU_PERCPU_HASH, struct rule_key, struct counter, 16384, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} fl_events SEC(".maps");
FL_MAP(fl_event_seen, BPF_MAP_TYPE_ARRAY, __u32, struct event_seen, FL_EVENT_ROWS, 0);
FL_MAP(fl_event_budget, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct event_budget, 1, 0);

#endif

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The part of types.h that is about policy (docs/decisions/0005). */
#ifndef FAIRLEAD_TYPES_POLICY_H
#define FAIRLEAD_TYPES_POLICY_H

enum policy_sizes {
	FL_GROUP_LINES = 32, /* lines in a chunk */
	FL_SET_WORDS = 32,
	FL_SET_COUNT = FL_SET_WORDS * 64,
	FL_ADDRESS_EPOCHS = 4096, /* powers of two, these three */
	FL_DENIED_ROWS = 65536,
	FL_EVENT_ROWS = 16384,
};

/* fl_subjects: the policy of a local identity in one direction, for each of
 * the two banks. The bank in force is policy_epoch & 1; the other is where the
 * next policy is written. Absent: dropped. */
struct subject_key {
	__u32 identity;
	enum direction dir;
	__u8 bank;
	__u8 pad[2];
};

struct subject {
	__u32 flags; /* subject_flags */
	__u32 group; /* its lines apply; 0: no lines */
	__u32 default_rule; /* blamed for what the default denies */
	__u32 lines; /* of the group */
};

/* fl_groups: a list of lines, FL_GROUP_LINES a chunk. The lines of a group
 * never change: another list is another group. */
struct group_key {
	__u32 group;
	__u32 chunk;
};

struct policy_line {
	__u16 set; /* of peers, below FL_SET_COUNT; 0: everybody */
	__u16 port_from; /* of ICMP: of the type + 1; 0-0: any, and protocols without ports */
	__u16 port_to;
	__u8 proto; /* 0: any */
	enum verdict verdict;
	__u32 rule_id; /* of a pass: the chunk behind its tier */
};

struct group_chunk {
	struct policy_line line[FL_GROUP_LINES];
};

/* fl_identities: every identity that a packet may bear. Absent: dropped. */
struct identity_class {
	__u32 class; /* index in fl_classes */
};

/* fl_classes: the sets whose members are the identities of this class. */
struct class_sets {
	__u64 sets[FL_SET_WORDS];
};

/* fl_denied: what policy denied in this tick, so that a flood of attempts is
 * answered by one lookup. The pod's port is left out: retries share a row. */
struct denied_key {
	__u8 peer[16];
	__u32 subject;
	__u16 port; /* where the flow goes to */
	__u8 proto;
	enum direction dir;
};

/* One cache line. A row belongs to whichever key was denied last of those whose
 * hash leads to it. */
struct denied {
	struct denied_key key;
	__u32 tick; /* true in this tick only */
	__u32 epoch; /* and for this policy */
	__u32 address_epoch; /* and for this holder of the peer's address */
	__u32 identity; /* the peer's */
	__u32 rule_id;
	__u32 folded; /* packets since the last event */
	enum reason reason;
	__u8 family;
	__u8 pad[2];
	__u32 sum; /* of all but folded: a row that two CPUs wrote is not believed */
	__u64 pad2;
};

#endif

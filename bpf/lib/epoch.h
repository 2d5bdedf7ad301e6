/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The serial numbers that say whether a verdict still holds. */
#ifndef FAIRLEAD_EPOCH_H
#define FAIRLEAD_EPOCH_H

#include "fairlead/maps.h"
#include "packet.h"

_Static_assert(offsetof(struct config, policy_epoch) == 0, "read by newer versions");
_Static_assert(offsetof(struct config, full_epoch) == 4, "both epochs are one word");
_Static_assert((FL_ADDRESS_EPOCHS & (FL_ADDRESS_EPOCHS - 1)) == 0, "the index is masked");

struct epochs {
	__u32 policy;
	__u32 full;
};

/* One load: whoever sees a new policy epoch sees the full epoch before it, also
 * where loads are reordered. Objects are little-endian only. */
static __always_inline struct epochs epochs_read(const struct config *cfg)
{
	__u64 both = *(const volatile __u64 *)cfg;

	return (struct epochs){ .policy = both, .full = both >> 32 };
}

static __always_inline bool epoch_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

/* Where the epoch of an address is. The same as AddressEpochIndex in Go. addr
 * is 16 bytes, those behind an IPv4 address zero. */
static __always_inline __u32 address_epoch_index(const __u8 *addr)
{
	const __u64 *half = (const __u64 *)addr;
	__u64 mixed = half[0] * 0x9e3779b97f4a7c15ULL ^ half[1] * 0xc2b2ae3d27d4eb4fULL;

	return mixed >> 52 & (FL_ADDRESS_EPOCHS - 1);
}

static __always_inline __u32 address_epoch_at(__u32 index)
{
	__u32 *epoch = bpf_map_lookup_elem(&fl_address_epochs, &index);

	return epoch ? *(volatile __u32 *)epoch : 0;
}

/* Read it before the address is looked up: a verdict about the old row must
 * not carry the new row's epoch. */
static __always_inline __u32 address_epoch(const __u8 *addr)
{
	return address_epoch_at(address_epoch_index(addr));
}

#endif

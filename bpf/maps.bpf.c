//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* No program: the object from which user space creates the maps that all
 * programs share, and from whose BTF the Go types and constants are made. */
#include "fairlead/maps.h"

/* Enums reach the BTF only when something refers to them. */
#define FL_EXPORT(kind_, name_) \
	kind_ name_ *fl_export_##name_ __attribute__((unused))

FL_EXPORT(enum, reserved_identity);
FL_EXPORT(enum, hook);
FL_EXPORT(enum, direction);
FL_EXPORT(enum, verdict);
FL_EXPORT(enum, reason);
FL_EXPORT(enum, iface_flags);
FL_EXPORT(enum, remote_flags);
FL_EXPORT(enum, peer_flags);
FL_EXPORT(enum, ct_flags);
FL_EXPORT(enum, subject_flags);
FL_EXPORT(enum, service_flags);
FL_EXPORT(enum, event_flags);
FL_EXPORT(enum, policy_sizes);
FL_EXPORT(enum, affinity_kind);
FL_EXPORT(enum, mark);
FL_EXPORT(struct, event);

char _license[] SEC("license") = "GPL";

/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
#ifndef FAIRLEAD_GLOBAL_H
#define FAIRLEAD_GLOBAL_H

/* A global function is verified once, for any arguments, and not again for
 * each of the paths that lead to it; inlined, the pod hooks have more paths
 * than 6.1's verifier follows (a million instructions). The price:
 * arguments are the context, scalars, or pointers to plain memory, which may
 * be NULL to the verifier, hold no pointers, have no uninitialized holes (so
 * their structs pad explicitly), and can't be a map's key on 6.1. */
#define FL_GLOBAL __attribute__((noinline))

#endif

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

// One object for all little-endian machines: no program depends on the CPU.
// The flags: mcpu v3 has 32-bit arithmetic and atomics, which every kernel we
// support (6.1 on) knows; headers are read through packed and aliased pointers.

//go:generate -command compile go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-address-of-packed-member -fno-strict-aliasing -Iinclude -Ilib"
//go:generate compile maps maps.bpf.c
//go:generate go run ./internal/gotypes -object maps_bpfel.o -out types_gen.go
//go:generate compile podEgress pod_egress.bpf.c
//go:generate compile podIngress pod_ingress.bpf.c
//go:generate compile tunnelIngress tunnel_ingress.bpf.c
//go:generate compile uplinkEgress uplink_egress.bpf.c
//go:generate compile socketLB socket_lb.bpf.c

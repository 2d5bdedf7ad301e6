// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

// One object for all little-endian machines: no program depends on the CPU.
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types maps maps.bpf.c -- -Iinclude -Ilib -O2 -g -Wall -Wextra -Werror -Wno-address-of-packed-member -fno-strict-aliasing -mcpu=v3
//go:generate go run ./internal/gotypes -object maps_bpfel.o -out types_gen.go

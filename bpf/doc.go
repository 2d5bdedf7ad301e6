// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bpf is the datapath: the eBPF programs that see every packet of a
// mesh pod, the maps they share with the node agent, and the loader of both.
//
// A hook is a file:
//
//	pod_egress.bpf.c      packets FROM a pod (tc ingress of its host-side interface)
//	pod_ingress.bpf.c     packets TO a pod (tc egress of that interface)
//	tunnel_ingress.bpf.c  decrypted packets (tc ingress of the tunnel device)
//	uplink_egress.bpf.c   packets leaving the node (tc egress of its uplinks)
//	socket_lb.bpf.c       connect, sendmsg, recvmsg, getpeername (cgroup)
//	maps.bpf.c            no program: the maps, and the types Go is generated from
//
// What they share is in lib/ (one concern a header) and include/fairlead/
// (types.h: numbers and structs; maps.h: maps; kernel.h: the kernel's).
//
// Who writes what:
//
//	map                        written by        read by
//	fl_config                  agent             all hooks
//	fl_ifaces                  agent             pod_egress, pod_ingress
//	fl_locals4/6               agent             tunnel_ingress
//	fl_ipcache4/6              agent             pod_*, tunnel_ingress
//	fl_cidr4/6                 agent             pod_*
//	fl_blocks4/6               agent             pod_egress, pod_ingress
//	fl_guard4/6                agent             uplink_egress
//	fl_address_epochs          agent             pod_*
//	fl_peers                   agent             pod_egress
//	fl_subjects, fl_groups     agent             pod_egress, pod_ingress
//	fl_identities, fl_classes  agent             pod_egress, pod_ingress
//	fl_sets                    agent             agent
//	fl_fence                   agent             nobody (Maps.Fence)
//	fl_services4/6, fl_slots   agent             socket_lb
//	fl_ct4/6, fl_frags         pod_*             pod_* (agent: dumps)
//	fl_denied                  pod_*             pod_*
//	fl_scratch                 pod_*             pod_* (while a flow is judged)
//	fl_sock_peer, fl_sock_rev  socket_lb         socket_lb
//	fl_affinity                socket_lb         socket_lb
//	fl_metrics, fl_rule_stats  all hooks         agent
//	fl_events (+ seen, budget) pod_*, tunnel_*   agent
//
// The agent writes in an order that is right at every step: a service's slots
// before its backend count; an address's row before its epoch; class bits,
// identities and groups before the subjects of the bank that is not in force,
// those before policy_epoch, and after it a Fence before anything of the old
// policy goes. A number (of a set, a class, a group) that gets another meaning
// needs full_epoch too: running flows remember numbers, not meanings.
//
// types_gen.go, *_bpfel.go and *_bpfel.o are generated and committed; go
// generate reproduces them byte for byte (clang 19, libbpf headers).
package bpf

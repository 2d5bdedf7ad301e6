// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/services"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Broken are the drivers of a node with a kernel that can't be programmed. The agent still follows the mesh and reports;
// every row says why it is not there.
func Broken(reason error) Drivers {
	return Drivers{
		Policy: policy.Driver{
			Sets: broken[uint32, uint64]{reason}, Classes: broken[uint32, bpf.ClassSets]{reason},
			Members: broken[uint32, bpf.IdentityClass]{reason}, Groups: broken[bpf.GroupKey, bpf.GroupChunk]{reason},
			Blocks: broken[netip.Prefix, uint32]{reason}, Subjects: broken[bpf.SubjectKey, bpf.Subject]{reason}, Epochs: brokenConfig{reason},
		},
		Routes: routes.Driver{
			Peers: broken[uint16, bpf.Peer]{reason}, Ranges: broken[netip.Prefix, bpf.Remote]{reason}, Guards: broken[netip.Prefix, uint32]{reason},
			Addresses: broken[netip.Addr, bpf.Remote]{reason}, AddressEpochs: broken[uint32, uint32]{reason},
		},
		Endpoints: endpoints.Driver{
			Ifaces: broken[uint32, bpf.Iface]{reason}, Locals: broken[netip.Addr, bpf.Local]{reason}, Hooks: broken[table.Hook, table.Attachment]{reason},
		},
		Services: services.Driver{Slots: broken[bpf.SlotKey, bpf.Backend]{reason}, Frontends: broken[table.Frontend, bpf.Service]{reason}},
		Settings: brokenConfig{reason},
		Mode:     "none",
	}
}

type broken[K, V comparable] struct{ reason error }

func (b broken[K, V]) Update(_ context.Context, keys []K, _ []V) []error {
	return apply.Each(len(keys), func(int) error { return b.reason })
}

func (b broken[K, V]) Delete(context.Context, []K) []error { return nil }

func (b broken[K, V]) Have(context.Context, func([]K, []V)) error { return nil }

type brokenConfig struct{ reason error }

func (brokenConfig) Settings() (bpf.Config, error)            { return bpf.Config{}, nil }
func (brokenConfig) SetSettings(bpf.Config) error             { return nil }
func (brokenConfig) Epochs() (policy, full uint32, err error) { return 0, 0, nil }
func (b brokenConfig) SetEpochs(uint32, uint32) error         { return b.reason }
func (brokenConfig) Fence() error                             { return nil }

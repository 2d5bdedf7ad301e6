// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/services"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Broken are the doors of a node whose kernel can't be programmed. The agent still follows the mesh and reports; every
// row says why it is not there.
func Broken(reason error) Doors {
	return Doors{
		Policy: policy.Doors{
			Entries: broken[bpf.PolicyKey, bpf.PolicyEntry]{reason}, Subjects: broken[bpf.SubjectKey, bpf.Subject]{reason},
		},
		Routes: routes.Doors{
			Peers: broken[uint16, bpf.Peer]{reason}, Ranges: broken[netip.Prefix, bpf.Remote]{reason},
			Addresses: broken[netip.Addr, bpf.Remote]{reason},
		},
		Endpoints: endpoints.Doors{
			Ifaces: broken[uint32, bpf.Iface]{reason}, Locals: broken[netip.Addr, bpf.Local]{reason},
			Hooks: broken[table.Hook, table.Attachment]{reason},
		},
		Services: services.Doors{
			Slots: broken[bpf.SlotKey, bpf.Backend]{reason}, Frontends: broken[table.Frontend, bpf.Service]{reason},
		},
		Settings: brokenSettings{},
		Mode:     "none",
	}
}

type broken[K, V comparable] struct{ reason error }

func (b broken[K, V]) Update(context.Context, K, V) error    { return b.reason }
func (b broken[K, V]) Delete(context.Context, K) error       { return nil }
func (b broken[K, V]) Have(context.Context) (map[K]V, error) { return nil, nil }

type brokenSettings struct{}

func (brokenSettings) Settings() (bpf.Config, error) { return bpf.Config{}, nil }
func (brokenSettings) SetSettings(bpf.Config) error  { return nil }

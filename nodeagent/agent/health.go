// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/nodeagent/apply/wireguard"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
)

// health is what the tunnel device last said of its peers. A dump of it costs all of them, so reports share one.
type health struct {
	mu     sync.Mutex
	device wireguard.Device
	taken  time.Time
	peers  map[string]kernelwg.Status // by public key
}

// healthFor is how long a dump serves.
const healthFor = 5 * time.Second

func (h *health) of(device wireguard.Device, now time.Time) (map[string]kernelwg.Status, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.device == device && now.Sub(h.taken) < healthFor {
		return h.peers, nil
	}
	all, err := device.Peers()
	if err != nil {
		return h.peers, err
	}
	h.device, h.taken, h.peers = device, now, make(map[string]kernelwg.Status, len(all))
	for _, p := range all {
		h.peers[p.PublicKey.String()] = p
	}
	return h.peers, nil
}

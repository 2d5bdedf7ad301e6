// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/fairlead-mesh/fairlead/mesh/relay"
)

func registerMetrics(hub *relay.Hub, server *relay.Server) {
	gauge := func(name, help string, value func() float64) {
		metrics.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("fairlead_relay_records", "Records of all clusters that the relay holds for agents.", func() float64 { return float64(hub.Len()) })
	gauge("fairlead_relay_revision", "Newest revision of the relay's stream.", func() float64 { return float64(hub.At().GetRevision()) })
	gauge("fairlead_relay_agents", "Node agents connected to this replica.", func() float64 { return float64(len(server.Subscribers())) })
	gauge("fairlead_relay_agents_waiting", "Node agents that wait for their snapshot to begin.", func() float64 { return float64(server.Load().Waiting) })
	metrics.Registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "fairlead_relay_agents_stuck_total", Help: "Node agents that were cut off because they accepted nothing.",
	}, func() float64 { return float64(server.Load().Stuck) }))
}

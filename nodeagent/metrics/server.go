// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Off is the address of a server that doesn't serve.
const Off = "0"

// retryAfter is how long a server waits for an address that somebody else has.
const retryAfter = 10 * time.Second

// Server answers Prometheus at /metrics.
type Server struct {
	Address    string
	Collectors []prometheus.Collector
	Log        *slog.Logger
}

// Run serves until ctx ends. An address that can't be had is no reason to end, and no problem of the node's either: the agent
// has better things to do than to be measured.
func (s *Server) Run(ctx context.Context) error {
	if s.Address == Off {
		<-ctx.Done()
		return nil
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(s.Collectors...)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	said := ""
	for {
		if err := s.serve(ctx, mux); err != nil && err.Error() != said {
			said = err.Error()
			s.Log.Error("Prometheus is not answered; choose another --metrics-address, or "+Off+" for none", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryAfter):
		}
	}
}

func (s *Server) serve(ctx context.Context, h http.Handler) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("listen for Prometheus: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

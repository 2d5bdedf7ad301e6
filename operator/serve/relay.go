// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Server serves the relay's protocol on a listener.
type Server interface {
	Serve(ctx context.Context, lis net.Listener, creds credentials.TransportCredentials) error
}

// Relay opens the relay in every replica.
type Relay struct {
	Address   string
	Namespace string
	Server    Server
	Reader    client.Reader
	// Ready is closed when the relay has something to tell.
	Ready <-chan struct{}
	Log   *slog.Logger

	open atomic.Bool
}

// Open says whether agents are being served.
func (r *Relay) Open() bool { return r.open.Load() }

// NeedLeaderElection says that every replica serves.
func (r *Relay) NeedLeaderElection() bool { return false }

// Start serves until ctx ends.
func (r *Relay) Start(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.Ready:
	}
	if err := r.awaitCertificate(ctx); err != nil {
		return nil //nolint:nilerr // only ctx ends the wait
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.Address)
	if err != nil {
		return fmt.Errorf("open the relay: %w", err)
	}
	r.open.Store(true)
	defer r.open.Store(false)
	r.Log.Info("relay open for node agents", "address", lis.Addr().String())
	return r.Server.Serve(ctx, lis, credentials.NewTLS(serverConfig(r.Reader, r.Namespace)))
}

func (r *Relay) awaitCertificate(ctx context.Context) error {
	for first := true; ; first = false {
		_, err := currentCertificate(ctx, r.Reader, r.Namespace)
		if err == nil {
			return nil
		}
		if first || !errors.Is(err, errNoCertificate) {
			r.Log.Info("relay waits for its certificate", "why", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

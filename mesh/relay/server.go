// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// ServerConfig says who may connect and where reports go.
type ServerConfig struct {
	// Authenticate checks a bearer token and gives the node it was issued to. An error refuses the call; so does an empty
	// node, because such a token could read and report in every node's name.
	Authenticate func(ctx context.Context, token string) (node string, err error)

	// Report takes an agent's report; its node is the authenticated one. An error is handed to the agent.
	Report func(ctx context.Context, r *relayv1.ReportRequest) error

	// Snapshots is how many agents are sent a snapshot at a time; 0 means DefaultSnapshots.
	Snapshots int

	// Stall is how long an agent may take to accept one batch before its connection is closed; 0 means DefaultStall.
	Stall time.Duration

	Logger *slog.Logger
}

// Server streams a Hub to agents.
type Server struct {
	relayv1.UnimplementedRelayServer
	hub    *Hub
	cfg    ServerConfig
	log    *slog.Logger
	places *places
	stuck  atomic.Uint64

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	byNode      map[string]*subscriber // the newest of each
	listeners   map[*connections]struct{}
}

type subscriber struct {
	info   Subscriber
	cancel context.CancelCauseFunc
}

// Load says how busy a Server is.
type Load struct {
	Snapshots int    // being sent, slow ones left out
	Waiting   int    // agents that wait for theirs to begin
	Stuck     uint64 // agents that were cut off because they accepted nothing, ever
}

// Subscriber is a connected agent.
type Subscriber struct {
	Node     string
	Address  string
	Since    time.Time
	Revision uint64 // of the hub, sent so far
}

// NewServer makes a Server. It panics without cfg.Authenticate: there is no relay without authentication.
func NewServer(hub *Hub, cfg ServerConfig) *Server {
	if cfg.Authenticate == nil {
		panic("relay: NewServer needs Authenticate")
	}
	cfg.Snapshots = cmp.Or(cfg.Snapshots, DefaultSnapshots)
	cfg.Stall = cmp.Or(cfg.Stall, DefaultStall)
	return &Server{
		hub: hub, cfg: cfg, log: cmp.Or(cfg.Logger, slog.Default()), places: newPlaces(cfg.Snapshots),
		subscribers: map[*subscriber]struct{}{}, byNode: map[string]*subscriber{}, listeners: map[*connections]struct{}{},
	}
}

// options are what the gRPC server needs: authentication, the codec that sends records encoded once, and keepalives, so
// that a vanished agent doesn't hold its stream.
func (s *Server) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newWireCodec()),
		grpc.ChainUnaryInterceptor(s.authenticateUnary),
		grpc.ChainStreamInterceptor(s.authenticateStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(maxReport),
	}
}

// maxReport bounds what an agent may send.
const maxReport = 8 << 20

// Serve runs a gRPC server of its own on a listener until ctx ends, then returns nil. creds nil means plaintext.
func (s *Server) Serve(ctx context.Context, lis net.Listener, creds credentials.TransportCredentials) error {
	opts := s.options()
	if creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	g := grpc.NewServer(opts...)
	relayv1.RegisterRelayServer(g, s)
	conns := newConnections(lis)
	s.listening(conns, true)
	defer s.listening(conns, false)
	// Streams never end by themselves, so there is nothing to wait for gracefully: agents reconnect and resume.
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(conns); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve the relay on %s: %w", lis.Addr(), err)
	}
	return nil
}

// Subscribers lists the connected agents by node.
func (s *Server) Subscribers() []Subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Subscriber, 0, len(s.subscribers))
	for sub := range s.subscribers {
		out = append(out, sub.info)
	}
	slices.SortFunc(out, func(a, b Subscriber) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Since.Compare(b.Since))
	})
	return out
}

// Load says how busy the server is.
func (s *Server) Load() Load {
	return Load{Snapshots: int(s.places.taken.Load()), Waiting: int(s.places.waiting.Load()), Stuck: s.stuck.Load()}
}

func (s *Server) listening(c *connections, yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if yes {
		s.listeners[c] = struct{}{}
	} else {
		delete(s.listeners, c)
	}
}

// Report implements relayv1.RelayServer.
func (s *Server) Report(ctx context.Context, req *relayv1.ReportRequest) (*relayv1.ReportResponse, error) {
	if _, err := s.nodeOf(ctx, req.GetNode()); err != nil {
		return nil, err
	}
	if s.cfg.Report == nil {
		return nil, status.Error(codes.Unimplemented, "this relay takes no reports")
	}
	if err := s.cfg.Report(ctx, req); err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return nil, status.FromContextError(err).Err()
		}
		return nil, status.Errorf(codes.Unavailable, "take the report of node %s: %v", req.GetNode(), err)
	}
	return &relayv1.ReportResponse{}, nil
}

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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// ServerConfig says who may connect and where reports go.
type ServerConfig struct {
	// Authenticate checks a bearer token and gives the node it was issued to. An error refuses the call.
	Authenticate func(ctx context.Context, token string) (node string, err error)

	// AllowUnboundTokens accepts a token for which Authenticate gives no node as any node's. Without it such a token is
	// refused: it could read and report in every node's name.
	AllowUnboundTokens bool

	// Report takes an agent's report; its node is the authenticated one. An error is handed to the agent.
	Report func(ctx context.Context, r *relayv1.ReportRequest) error

	// Filter, if set, says which records a node needs. It must always answer the same for the same arguments.
	Filter func(node, key string) bool

	Logger *slog.Logger
}

// Server streams a Hub to agents. Its Options must be given to the gRPC server it is registered with; Serve does both.
type Server struct {
	relayv1.UnimplementedRelayServer
	hub *Hub
	cfg ServerConfig
	log *slog.Logger

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
}

type subscriber struct {
	info Subscriber
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
	log := cmp.Or(cfg.Logger, slog.Default())
	return &Server{hub: hub, cfg: cfg, log: log, subscribers: map[*subscriber]struct{}{}}
}

// Options are what the gRPC server needs: authentication, the codec that sends records encoded once, and keepalives, so
// that a vanished agent doesn't hold its stream.
func (s *Server) Options() []grpc.ServerOption {
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
	opts := s.Options()
	if creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	g := grpc.NewServer(opts...)
	relayv1.RegisterRelayServer(g, s)
	// Streams never end by themselves, so there is nothing to wait for gracefully: agents reconnect and resume.
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(lis); err != nil && ctx.Err() == nil {
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

// Subscribe implements relayv1.RelayServer.
func (s *Server) Subscribe(req *relayv1.SubscribeRequest, stream grpc.ServerStreamingServer[relayv1.Batch]) error {
	node, err := s.nodeOf(stream.Context(), req.GetNode())
	if err != nil {
		return err
	}
	sub, leave := s.enter(stream.Context(), node)
	defer leave()
	var keep func(string) bool
	if s.cfg.Filter != nil {
		keep = func(key string) bool { return s.cfg.Filter(node, key) }
	}
	at := s.hub.resume(req.GetResume())
	s.log.Info("agent subscribed", "node", node, "address", sub.info.Address, "resumed", at.started)
	err = s.stream(stream, sub, at, keep)
	s.log.Info("agent left", "node", node, "address", sub.info.Address, "error", err)
	return err
}

// stream sends until the agent leaves. The first view is sent even if it is empty, so that an agent knows it is served.
func (s *Server) stream(stream grpc.ServerStream, sub *subscriber, at cursor, keep func(string) bool) error {
	for first := true; ; first = false {
		v := s.hub.since(at)
		if first || v.snapshot || v.news || len(v.entries) > 0 {
			batches := s.hub.batches(v, keep)
			for i := range batches {
				if !first && batches[i].empty() {
					continue // filtered away
				}
				if err := stream.SendMsg(&batches[i]); err != nil {
					return err
				}
			}
		}
		at = v.next
		s.mu.Lock()
		sub.info.Revision = at.revision
		s.mu.Unlock()
		select {
		case <-v.changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *Server) enter(ctx context.Context, node string) (*subscriber, func()) {
	sub := &subscriber{Subscriber{Node: node, Since: time.Now()}}
	if p, ok := peer.FromContext(ctx); ok {
		sub.info.Address = p.Addr.String()
	}
	s.mu.Lock()
	s.subscribers[sub] = struct{}{}
	s.mu.Unlock()
	return sub, func() {
		s.mu.Lock()
		delete(s.subscribers, sub)
		s.mu.Unlock()
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

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// Subscribe implements relayv1.RelayServer.
func (s *Server) Subscribe(req *relayv1.SubscribeRequest, to grpc.ServerStreamingServer[relayv1.Batch]) error {
	node, err := s.nodeOf(to.Context(), req.GetNode())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(to.Context())
	defer cancel(nil)
	sub, leave := s.enter(ctx, node, cancel)
	defer leave()
	st := &stream{server: s, ctx: ctx, to: to, sub: sub, at: s.hub.resume(req.GetResume())}
	defer st.leavePlace()
	s.log.Info("agent subscribed", "node", node, "address", sub.info.Address, "resumed", len(st.at.seen) > 0)
	err = st.run()
	s.log.Info("agent left", "node", node, "address", sub.info.Address, "error", err)
	return err
}

// stream sends to one agent.
type stream struct {
	server *Server
	ctx    context.Context // ends with the call, and when the node subscribes again
	to     grpc.ServerStream
	sub    *subscriber
	at     cursor
	served bool   // a batch was sent
	leave  func() // gives back the place among the snapshots; nil: there is none
}

// run sends until the agent leaves. The header goes at once, so that an agent that has to wait knows that it is served;
// an agent that resumes is sent a batch even if there is nothing new, so that it knows that it is up to date.
func (st *stream) run() error {
	ctx := st.ctx
	if err := st.to.SendHeader(nil); err != nil {
		return err
	}
	for {
		n := st.server.hub.next(&st.at)
		if n.behind {
			if err := st.beginSnapshot(ctx); err != nil {
				return err
			}
			continue
		}
		if !st.served || !n.batch.empty() {
			if err := st.send(&n.batch); err != nil {
				return err
			}
		}
		if n.wait == nil {
			continue
		}
		st.leavePlace()
		select {
		case <-n.wait:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// errReplaced ends a stream whose node has another one.
var errReplaced = status.Error(codes.Aborted, "the node subscribed again")

// ended says why a stream's context ended.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errReplaced) {
		return cause
	}
	return ctx.Err()
}

// beginSnapshot waits for a place among the snapshots. Meanwhile the agent has what it had.
func (st *stream) beginSnapshot(ctx context.Context) error {
	if st.leave == nil {
		leave, ok := st.server.places.try()
		if !ok {
			var err error
			if leave, err = st.server.places.take(ctx); err != nil {
				return ended(ctx)
			}
		}
		st.leave = leave
	}
	st.server.hub.begin(&st.at)
	return nil
}

func (st *stream) leavePlace() {
	if st.leave != nil {
		st.leave()
		st.leave = nil
	}
}

// send sends one batch, and cuts the agent off if it doesn't accept it in time.
func (st *stream) send(b *wireBatch) error {
	s := st.server
	timer := time.AfterFunc(s.cfg.Stall, func() { s.cut(st.sub) })
	err := st.to.SendMsg(b)
	if !timer.Stop() {
		return status.Errorf(codes.DeadlineExceeded, "the agent did not accept a batch within %s", s.cfg.Stall)
	}
	if err != nil {
		return err
	}
	st.served = true
	if at := b.head.GetAt(); at != nil {
		s.mu.Lock()
		st.sub.info.Revision = at.GetRevision()
		s.mu.Unlock()
	}
	return nil
}

// cut closes an agent's connection. It may come back, and goes on from what it had applied.
func (s *Server) cut(sub *subscriber) {
	s.stuck.Add(1)
	s.log.Warn("agent accepts nothing and is cut off", "node", sub.info.Node, "address", sub.info.Address, "for", s.cfg.Stall)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.listeners {
		c.cut(sub.info.Address)
	}
}

// enter notes a node's stream. It takes the place of any other that the node has: an agent has one, so the other is dead or
// somebody's who would keep the places among the snapshots from the others.
func (s *Server) enter(ctx context.Context, node string, cancel context.CancelCauseFunc) (*subscriber, func()) {
	sub := &subscriber{info: Subscriber{Node: node, Since: time.Now()}, cancel: cancel}
	if p, ok := peer.FromContext(ctx); ok {
		sub.info.Address = p.Addr.String()
	}
	s.mu.Lock()
	s.subscribers[sub] = struct{}{}
	if before := s.byNode[node]; before != nil {
		before.cancel(errReplaced)
	}
	s.byNode[node] = sub
	s.mu.Unlock()
	return sub, func() {
		s.mu.Lock()
		delete(s.subscribers, sub)
		if s.byNode[node] == sub {
			delete(s.byNode, node)
		}
		s.mu.Unlock()
	}
}

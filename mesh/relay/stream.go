// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
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
	sub, leave := s.enter(to.Context(), node)
	defer leave()
	st := &stream{server: s, to: to, sub: sub, at: s.hub.resume(req.GetResume())}
	defer st.leavePlace()
	s.log.Info("agent subscribed", "node", node, "address", sub.info.Address, "resumed", len(st.at.seen) > 0)
	err = st.run()
	s.log.Info("agent left", "node", node, "address", sub.info.Address, "error", err)
	return err
}

// stream sends to one agent.
type stream struct {
	server *Server
	to     grpc.ServerStream
	sub    *subscriber
	at     cursor
	served bool   // a batch was sent
	leave  func() // gives back the place among the snapshots; nil: there is none
}

// run sends until the agent leaves. The header goes at once, so that an agent that has to wait knows that it is served;
// an agent that resumes is sent a batch even if there is nothing new, so that it knows that it is up to date.
func (st *stream) run() error {
	ctx := st.to.Context()
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
			return ctx.Err()
		}
	}
}

// beginSnapshot waits for a place among the snapshots. Meanwhile the agent has what it had.
func (st *stream) beginSnapshot(ctx context.Context) error {
	if st.leave == nil {
		leave, ok := st.server.places.try()
		if !ok {
			var err error
			if leave, err = st.server.places.take(ctx); err != nil {
				return err
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

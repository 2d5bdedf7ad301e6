// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The authenticated node travels from the interceptors to the handlers in the context.
type nodeKey struct{}

func (s *Server) authenticate(ctx context.Context) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) != 1 {
		return nil, status.Error(codes.Unauthenticated, "one authorization header is needed")
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok || token == "" {
		return nil, status.Error(codes.Unauthenticated, "the authorization header holds no bearer token")
	}
	node, err := s.cfg.Authenticate(ctx, token)
	if err != nil {
		s.log.Warn("agent refused", "error", err)
		return nil, status.Errorf(codes.Unauthenticated, "token refused: %v", err)
	}
	return context.WithValue(ctx, nodeKey{}, node), nil
}

// nodeOf gives the node that a caller acts for, if it may.
func (s *Server) nodeOf(ctx context.Context, claimed string) (string, error) {
	node, authenticated := ctx.Value(nodeKey{}).(string)
	switch {
	case !authenticated:
		return "", status.Error(codes.Unauthenticated, "not authenticated")
	case claimed == "":
		return "", status.Error(codes.InvalidArgument, "the request names no node")
	case node == "":
		return "", status.Error(codes.PermissionDenied, "the token is bound to no node")
	case node != claimed:
		return "", status.Errorf(codes.PermissionDenied, "the token is node %s's, the request names %q", node, claimed)
	}
	return node, nil
}

func (s *Server) authenticateUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *Server) authenticateStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := s.authenticate(ss.Context())
	if err != nil {
		return err
	}
	return next(srv, &authenticatedStream{ServerStream: ss, ctx: ctx})
}

type authenticatedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *authenticatedStream) Context() context.Context { return s.ctx }

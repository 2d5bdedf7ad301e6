// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	h := NewHub(0)
	apply(t, h, put("east", "a", 1))
	h.SetClusters(synced("east"))
	var mu sync.Mutex
	var reports []*relayv1.ReportRequest
	report := func(_ context.Context, r *relayv1.ReportRequest) error {
		mu.Lock()
		defer mu.Unlock()
		if r.GetAgentVersion() == "bad" {
			return errors.New("no room")
		}
		reports = append(reports, r)
		return nil
	}
	strict := serve(t, h, func(c *ServerConfig) { c.Report = report })

	for name, tc := range map[string]struct {
		token, node string
		want        codes.Code
	}{
		"its own node":     {"token-of-n1", "n1", codes.OK},
		"another node":     {"token-of-n1", "n2", codes.PermissionDenied},
		"no node":          {"token-of-n1", "", codes.InvalidArgument},
		"unknown token":    {"stolen", "n1", codes.Unauthenticated},
		"empty token":      {"", "n1", codes.Unauthenticated},
		"token of no node": {"unbound", "n1", codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewClient(ClientConfig{Targets: []string{strict.address}, Node: tc.node, Token: func(context.Context) (string, error) { return tc.token, nil }})
			enough := errors.New("enough")
			progress, err := c.attempt(t.Context(), nil, func(*relayv1.Batch) error {
				rerr := c.Report(t.Context(), &relayv1.ReportRequest{Node: tc.node})
				if rerr != nil {
					t.Errorf("report: %v", rerr)
				}
				return enough
			})
			if tc.want == codes.OK {
				if !errors.Is(err, enough) {
					t.Errorf("got %v", err)
				}
				return
			}
			if progress || status.Code(errors.Unwrap(err)) != tc.want {
				t.Errorf("progress %v, %v, want %s", progress, err, tc.want)
			}
		})
	}
	t.Run("report in another's name", func(t *testing.T) {
		a := follow(t, "n1", strict.address)
		eventually(t, "connected", func() bool { return a.client.Status().Connected })
		before := len(reports)
		if err := a.client.Report(t.Context(), &relayv1.ReportRequest{Node: "n2"}); status.Code(errors.Unwrap(err)) != codes.PermissionDenied {
			t.Errorf("got %v", err)
		}
		if err := a.client.Report(t.Context(), &relayv1.ReportRequest{Node: "n1", AgentVersion: "bad"}); err == nil {
			t.Error("the operator's refusal didn't reach the agent")
		}
		if len(reports) != before {
			t.Error("a refused report was taken")
		}
	})
	t.Run("report while not connected", func(t *testing.T) {
		c := NewClient(ClientConfig{Node: "n1"})
		if err := c.Report(t.Context(), &relayv1.ReportRequest{Node: "n1"}); !errors.Is(err, ErrNotConnected) {
			t.Errorf("got %v", err)
		}
	})
}

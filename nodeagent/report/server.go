// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	meshflow "github.com/fairlead-mesh/fairlead/mesh/flow"
	"github.com/fairlead-mesh/fairlead/nodeagent/flow"
)

// DefaultSocket is where the agent answers. Only root may ask.
const DefaultSocket = "/run/fairlead/agent.sock"

// Paths on the socket, spoken in HTTP.
const (
	PathStatus = "/v1/status" // State as JSON
	PathFlows  = "/v1/flows"  // mesh/flow.Flow, one JSON object a line; ?last=N&follow=true&verdict=DENIED
)

// Server answers on the agent's socket.
type Server struct {
	Socket string
	Now    func() State
	Ring   *flow.Ring
	Log    *slog.Logger
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.Socket), 0o755); err != nil {
		return fmt.Errorf("making the directory of the socket: %w", err)
	}
	if err := os.Remove(s.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the former agent's socket: %w", err)
	}
	listener, err := net.Listen("unix", s.Socket)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", s.Socket, err)
	}
	if err := os.Chmod(s.Socket, 0o600); err != nil {
		return errors.Join(fmt.Errorf("closing %s to others: %w", s.Socket, err), listener.Close())
	}
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serving %s: %w", s.Socket, err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathStatus, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(s.Now()); err != nil {
			s.Log.Debug("telling the status", "error", err)
		}
	})
	mux.HandleFunc("GET "+PathFlows, s.flows)
	return mux
}

func (s *Server) flows(w http.ResponseWriter, r *http.Request) {
	last, err := count(r.URL.Query().Get("last"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	verdict := meshflow.Verdict(r.URL.Query().Get("verdict"))
	follow := r.URL.Query().Get("follow") == "true"
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	position, first := uint64(0), true
	for {
		flows, next, missed, more := s.Ring.From(position)
		if missed > 0 && !first {
			s.Log.Debug("a follower of flows is too slow", "missed", missed)
		}
		flows = slices.DeleteFunc(flows, func(f meshflow.Flow) bool { return verdict != "" && f.Verdict != verdict })
		if first {
			flows = flows[len(flows)-min(len(flows), last):]
			first = false
		}
		for _, f := range flows {
			if err := out.Encode(f); err != nil {
				return // the asker left
			}
		}
		if !follow {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		position = next
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}

func count(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("last=%q is no number of flows", text)
	}
	return n, nil
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package roles are the processes of the bench: the shared etcd, the operator's way from the store to the relay, the node
// agent with the kernel's real maps, and agents that read slowly or not at all. Each role is the product's own code; what
// a cluster would provide around it (an API server, a WireGuard module, pods) is replaced at the edge.
package roles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// Names of the roles.
const (
	Store    = "store"
	Operator = "operator"
	Agent    = "agent"
	Readers  = "readers"
)

// Serve runs a role until the parent is gone.
func Serve(role string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	switch role {
	case Store:
		return serveStore()
	case Operator:
		return serveOperator(log)
	case Agent:
		return serveAgent(log)
	case Readers:
		return serveReaders()
	}
	return fmt.Errorf("there is no role %q", role)
}

// None is for commands without arguments, or without an answer.
type None struct{}

// heap answers the command that all roles have.
func heap(collect bool) (process.Heap, error) { return process.HeapOfSelf(collect), nil }

// RelayFiles say how to reach the relay.
type RelayFiles struct {
	Socket string // of the relay, a UNIX socket: the agent lives in a network namespace of its own
	CA     string
	Cert   string
	Key    string
}

// wire counts what goes over an agent's connections, TLS included.
type wire struct {
	received, sent, dials atomic.Int64
}

type countedConn struct {
	net.Conn
	w *wire
}

func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.received.Add(int64(n))
	return n, err
}

func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.w.sent.Add(int64(n))
	return n, err
}

// client makes a relay client for a node.
func client(f RelayFiles, node string, w *wire, log *slog.Logger) (*relay.Client, error) {
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read the relay's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", f.CA)
	}
	return relay.NewClient(relay.ClientConfig{
		Targets: []string{"relay:4240"}, Node: node, Logger: log,
		TLS:   &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: relayName},
		Token: func(context.Context) (string, error) { return node, nil },
		Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", f.Socket)
			if err != nil {
				return nil, err
			}
			w.dials.Add(1)
			return countedConn{conn, w}, nil
		},
	}), nil
}

const relayName = "fairlead-relay"

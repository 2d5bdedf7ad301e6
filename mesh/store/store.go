// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package store is the door to the shared etcd, and the only importer of its client.
//
// Out: a Publisher makes the cluster's own prefix, /fairlead/v1/<cluster>/, equal to a desired record.Set, with the
// fewest writes, and keeps a heartbeat. In: a Watcher follows the whole of /fairlead/v1/ and hands every cluster's
// changes to a Handler as bytes; it decides what may be believed of the store (is a list complete, is the store younger
// than what we know), never what may be believed of a record: that is mesh/record's Validate.
//
// Publisher and Watcher keep their state apart from the connection. A Store may be closed and another opened (new
// credentials, another endpoint), and Run called again with it, without losing or repeating anything.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Config says where the shared etcd is and who we are there.
type Config struct {
	Endpoints []string    // https://host:port (http:// is for tests alone)
	TLS       *tls.Config // with the client certificate whose common name is the cluster's name
	Cluster   string
	Logger    *slog.Logger

	// Username and Password log in by password instead of by the certificate's common name.
	Username, Password string

	// Timeout bounds each step of Open and each request; 5 s if zero.
	Timeout time.Duration
}

// Store is a connection to the shared etcd that was checked: reachable, trusted, new enough, and willing.
type Store struct {
	client   *clientv3.Client
	cluster  string
	timeout  time.Duration
	log      *slog.Logger
	isolated bool
}

// Isolated tells whether the store refuses us to write under other clusters' names. If it does not, any member can
// speak for any other, and the administrator should be told.
func (s *Store) Isolated() bool { return s.isolated }

// Close ends the connection.
func (s *Store) Close() error { return s.client.Close() }

// Open connects to the store and checks it layer by layer. A failure is an *OpenError that names the first layer that
// failed and says what to do about it. It does not retry: callers do, with their own backoff.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	return nil, errors.New("not built yet")
}

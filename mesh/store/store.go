// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package store is the driver of the shared etcd, and the only importer of its client.
//
// Out: a Publisher makes the cluster's own prefix, /fairlead/v1/<cluster>/, equal to a desired record.Set, with the
// fewest writes, and keeps a heartbeat. In: a Watcher follows the whole of /fairlead/v1/ and hands every cluster's
// changes to a Handler as bytes; it decides what may be believed of the store (is a list complete, is the store older
// than what we know), never what may be believed of a record: that is mesh/record's Validate.
//
// Publisher and Watcher keep their state apart from the connection. A Store may be closed and another opened (new
// credentials, another endpoint), and Run called again with it, without losing or repeating anything.
//
// # What lies beside the records
//
// Under a cluster's prefix lie three more keys. "leader" is the fence: every transaction of a publisher is conditional on
// its revision and moves it, so all its writes form a chain. A second leader breaks the chain of the first; a store that
// lost writes (wiped, restored from a backup) breaks it too, and both sides notice with the next transaction. "heartbeat"
// is a time that only grows, written once all records are known to be in the store. "synced" is the canary: it says that
// the prefix was complete once. None has a lease: a store that was down for a while must come back with all it had.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"

	"github.com/fairlead-mesh/fairlead/mesh/record"
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
func (s *Store) Close() error {
	if err := s.client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the connection to the shared etcd: %w", err)
	}
	return nil
}

// Root is the prefix of everything that lies in the shared etcd.
const Root = "/fairlead/v1/"

const (
	keyLeader    = "leader"
	keyHeartbeat = "heartbeat"
	keySynced    = "synced"
	specialKeys  = 3
)

// Pages of a list: the first is small; from then on as many keys as make about pageBytes. For each page etcd walks over
// all keys that are left, so that many small pages of a large mesh would cost it dearly.
const (
	firstPage = 1000
	largePage = 20000
	pageBytes = 4 << 20
)

func prefixOf(cluster string) string { return Root + cluster + "/" }

// Open connects to the store and checks it layer by layer. A failure is an *OpenError that names the first layer that
// failed and says what to do about it. It does not retry: callers do, with their own backoff. One endpoint in order is
// enough, but none may run a version with known holes.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if !record.ValidClusterName(cfg.Cluster) || len(cfg.Endpoints) == 0 {
		return nil, &OpenError{
			Layer: LayerConfig, Hint: "set a cluster name and at least one endpoint",
			Err: fmt.Errorf("cluster name %q with %d endpoints", cfg.Cluster, len(cfg.Endpoints)),
		}
	}
	if err := probeAll(ctx, cfg); err != nil {
		return nil, err
	}
	s, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := s.checkPermissions(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func clientConfig(cfg Config, endpoints ...string) clientv3.Config {
	return clientv3.Config{
		Endpoints:   endpoints,
		TLS:         cfg.TLS,
		Username:    cfg.Username,
		Password:    cfg.Password,
		DialTimeout: cfg.Timeout,
		// A dead store is noticed by pings, not by the kernel's patience. gRPC allows no shorter interval than 10 s.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		PermitWithoutStream:  true,
		// gRPC's own backoff grows to two minutes, and a store that is back should be noticed within seconds.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.5, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		})},
		// The client logs every failed attempt; callers of this package see the same through Status and errors.
		Logger: zap.NewNop(),
	}
}

func connect(ctx context.Context, cfg Config) (*Store, error) {
	conf := clientConfig(cfg, cfg.Endpoints...)
	client, err := clientv3.New(conf)
	if err != nil {
		return nil, classify(LayerAuth, cfg.Endpoints[0], err)
	}
	return &Store{client: client, cluster: cfg.Cluster, timeout: cfg.Timeout, log: cfg.Logger}, nil
}

// checkPermissions makes sure that we may read all, write our own, and nobody else's. A transaction whose condition never
// holds asks for a permission without writing anything.
func (s *Store) checkPermissions(ctx context.Context) error {
	where := s.client.Endpoints()[0]
	if _, err := s.get(ctx, Root, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly()); err != nil {
		return classify(LayerAuth, where, fmt.Errorf("read %s: %w", Root, err))
	}
	own := prefixOf(s.cluster)
	if err := s.mayWrite(ctx, own+"probe"); err != nil {
		return classify(LayerAuth, where, fmt.Errorf("write %s: %w", own, err))
	}
	switch err := s.mayWrite(ctx, prefixOf("-")+"probe"); {
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		s.isolated = true
	case err != nil:
		return classify(LayerAuth, where, fmt.Errorf("ask for others' permissions: %w", err))
	default:
		s.log.Warn("the shared etcd lets this cluster write under other clusters' names: any member can speak for any other",
			"cluster", s.cluster, "fix", "enable authentication and grant each user readwrite on its own prefix alone")
	}
	return nil
}

func (s *Store) mayWrite(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	never := clientv3.Compare(clientv3.CreateRevision(key), "<", 0)
	_, err := s.client.Txn(ctx).If(never).Then(clientv3.OpPut(key, "")).Commit()
	return err
}

func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.client.Get(ctx, key, opts...)
}

// list goes over all keys of a prefix at one revision, in key order, a page at a time, and gives that revision.
func (s *Store) list(ctx context.Context, prefix string, each func(kv)) (int64, error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	next, revision, limit := prefix, int64(0), firstPage
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(int64(limit))}
		if revision > 0 {
			opts = append(opts, clientv3.WithRev(revision))
		}
		resp, err := s.get(ctx, next, opts...)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && limit > 1 {
			limit = max(limit/8, 1) // what is there is larger than what came before, or the link is slow
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("list %s: %w", prefix, err)
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		size := 0
		for _, found := range resp.Kvs {
			size += len(found.Key) + len(found.Value)
			each(kv{key: string(found.Key), value: found.Value, modRevision: found.ModRevision})
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return revision, nil
		}
		next = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
		limit = min(max(pageBytes/(size/len(resp.Kvs)+1), 1), largePage)
	}
}

type kv struct {
	key         string
	value       []byte
	modRevision int64
}

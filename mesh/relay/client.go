// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// ClientConfig says where the relay is and who we are.
type ClientConfig struct {
	// Targets are host:port of the operator's replicas, tried in turn. A name with several addresses counts as several.
	Targets []string

	// TLS for the connection; nil means plaintext. ServerName defaults to the target's host.
	TLS *tls.Config

	// Token gives the bearer token; it is asked before each call, so a rotated token is picked up.
	Token func(ctx context.Context) (string, error)

	Node   string
	Logger *slog.Logger

	// Dial replaces the network, for tests and for agents that dial from a certain namespace.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// ErrNotConnected is what Report gives while no relay is reached.
var ErrNotConnected = errors.New("not connected to a relay")

// Backoff bounds between attempts, and how long a relay may take to accept a stream.
const (
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	acceptIn     = 10 * time.Second
	maxBatchRecv = 16 << 20
)

// Client follows a relay. Run does the work; Report and Status may be called beside it.
type Client struct {
	cfg ClientConfig
	log *slog.Logger

	mu     sync.Mutex
	status ClientStatus
	relay  relayv1.RelayClient // nil while not connected
	next   int                 // target to try next
}

// ClientStatus says how following goes.
type ClientStatus struct {
	Connected bool
	Target    string    // the address of the relay in use, or of the last one tried
	Since     time.Time // of the last change of Connected
	LastBatch time.Time
	LastError error // why the last stream ended or attempt failed
}

// NewClient makes a Client.
func NewClient(cfg ClientConfig) *Client {
	// Each agent starts at another replica, so that they share the load.
	return &Client{cfg: cfg, log: cmp.Or(cfg.Logger, slog.Default()), next: rand.N(1 << 16)}
}

// Status says how following goes.
func (c *Client) Status() ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Run follows a relay until ctx ends, and returns ctx's error. resume is asked before each attempt where to go on (nil:
// send everything); it may itself be nil. handle gets each batch in order, from Run's goroutine. An error of handle ends
// the stream, and Run connects again.
func (c *Client) Run(ctx context.Context, resume func() *relayv1.ResumePoint, handle func(*relayv1.Batch) error) error {
	backoff := minBackoff
	for {
		progress, err := c.attempt(ctx, resume, handle)
		if ctx.Err() != nil {
			c.disconnected(ctx.Err())
			return ctx.Err()
		}
		c.disconnected(err)
		if progress {
			backoff = minBackoff
		}
		// Full jitter: after an operator's restart all of a cluster's agents come at once.
		wait := minBackoff/2 + rand.N(backoff)
		c.log.Warn("relay lost", "target", c.Status().Target, "error", err, "retry", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// attempt follows one relay until it fails. progress says that a batch with a resume point was taken: an agent that gets
// stuck before that, again and again, must not ask for a snapshot ten times a second.
func (c *Client) attempt(ctx context.Context, resume func() *relayv1.ResumePoint, handle func(*relayv1.Batch) error) (progress bool, err error) {
	target, err := c.pick(ctx)
	if err != nil {
		return false, err
	}
	conn, err := c.connect(target)
	if err != nil {
		return false, fmt.Errorf("prepare connection to relay %s: %w", target.address, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req := &relayv1.SubscribeRequest{Node: c.cfg.Node}
	if resume != nil {
		req.Resume = resume()
	}
	// A relay that takes the connection and then does nothing must not hold us: the next one may be well. One that is busy
	// accepts the stream at once, and sends when it is our turn.
	tooLate := time.AfterFunc(acceptIn, func() { cancel(fmt.Errorf("not accepted within %s", acceptIn)) })
	defer tooLate.Stop()
	relay := relayv1.NewRelayClient(conn)
	stream, err := relay.Subscribe(ctx, req)
	if err != nil {
		return false, fmt.Errorf("subscribe at relay %s: %w", target.address, causeOr(ctx, err))
	}
	if header, err := stream.Header(); err == nil && header != nil {
		c.connected(relay) // else Recv gives the reason
	}
	tooLate.Stop()
	for {
		batch, err := stream.Recv()
		if err != nil {
			return progress, fmt.Errorf("stream from relay %s: %w", target.address, causeOr(ctx, err))
		}
		c.mu.Lock()
		c.status.LastBatch = time.Now()
		c.mu.Unlock()
		if err := handle(batch); err != nil {
			return progress, fmt.Errorf("take a batch from relay %s: %w", target.address, err)
		}
		progress = progress || batch.GetAt() != nil
	}
}

func causeOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// Report sends a report to the relay in use.
func (c *Client) Report(ctx context.Context, r *relayv1.ReportRequest) error {
	c.mu.Lock()
	relay := c.relay
	c.mu.Unlock()
	if relay == nil {
		return ErrNotConnected
	}
	if _, err := relay.Report(ctx, r); err != nil {
		return fmt.Errorf("report node %s: %w", r.GetNode(), err)
	}
	return nil
}

type target struct{ address, serverName string }

// pick resolves the targets and gives the next in turn. Names are resolved each time: replicas come and go.
func (c *Client) pick(ctx context.Context) (target, error) {
	var all []target
	var failed error
	for _, t := range c.cfg.Targets {
		host, port, err := net.SplitHostPort(t)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("relay target %q: %w", t, err))
			continue
		}
		addresses := []string{host}
		if net.ParseIP(host) == nil && c.cfg.Dial == nil {
			if addresses, err = net.DefaultResolver.LookupHost(ctx, host); err != nil {
				failed = errors.Join(failed, fmt.Errorf("resolve relay %s: %w", host, err))
				continue
			}
		}
		for _, a := range addresses {
			all = append(all, target{net.JoinHostPort(a, port), host})
		}
	}
	if len(all) == 0 {
		return target{}, errors.Join(errors.New("no relay to try"), failed)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := all[c.next%len(all)]
	c.next++
	c.status.Target = t.address
	return t, nil
}

func (c *Client) connect(t target) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if c.cfg.TLS != nil {
		conf := c.cfg.TLS.Clone()
		if conf.ServerName == "" {
			conf.ServerName = t.serverName
		}
		creds = credentials.NewTLS(conf)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(bearer{c.cfg.Token, c.cfg.TLS != nil}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBatchRecv)),
		grpc.WithNoProxy(),
	}
	if c.cfg.Dial != nil {
		opts = append(opts, grpc.WithContextDialer(c.cfg.Dial))
	}
	return grpc.NewClient("passthrough:///"+t.address, opts...)
}

func (c *Client) connected(relay relayv1.RelayClient) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.relay = relay
	c.status.Connected, c.status.Since, c.status.LastError = true, time.Now(), nil
	c.log.Info("relay connected", "target", c.status.Target)
}

func (c *Client) disconnected(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.relay = nil
	if c.status.Connected || c.status.Since.IsZero() {
		c.status.Since = time.Now()
	}
	c.status.Connected, c.status.LastError = false, err
}

// bearer adds the token to each call.
type bearer struct {
	token  func(ctx context.Context) (string, error)
	secure bool
}

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	if b.token == nil {
		return nil, nil
	}
	t, err := b.token(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the relay token: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + t}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }

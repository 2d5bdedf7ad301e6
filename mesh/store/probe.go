// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// probeAll tries each endpoint on its own, because the etcd client hides which one failed and why.
func probeAll(ctx context.Context, cfg Config) error {
	failed := make([]*OpenError, len(cfg.Endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range cfg.Endpoints {
		wg.Go(func() { failed[i] = probe(ctx, cfg, endpoint) })
	}
	wg.Wait()
	var furthest *OpenError
	healthy := 0
	for _, err := range failed {
		switch {
		case err == nil:
			healthy++
		case err.Layer == LayerVersion || err.Layer == LayerConfig:
			return err
		case furthest == nil || err.Layer.rank() > furthest.Layer.rank():
			furthest = err // the one that got furthest says most about what is wrong
		}
	}
	if healthy == 0 {
		return furthest
	}
	for _, err := range failed {
		if err != nil {
			cfg.Logger.Warn("an endpoint of the shared etcd is out of order, going on with the others", "error", err)
		}
	}
	return nil
}

// probe walks up the layers of one endpoint.
func probe(ctx context.Context, cfg Config, endpoint string) *OpenError {
	host, port, secure, err := parseEndpoint(endpoint)
	if err != nil {
		return &OpenError{LayerConfig, endpoint, "write endpoints as https://host:port", err}
	}
	if secure && cfg.TLS == nil {
		return &OpenError{LayerConfig, endpoint, "give the CA and this cluster's client certificate", errors.New("https without TLS settings")}
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	addresses := []string{host}
	if net.ParseIP(host) == nil {
		if addresses, err = net.DefaultResolver.LookupHost(ctx, host); err != nil {
			return &OpenError{LayerDNS, endpoint, "check the host name, and that this cluster's DNS knows it", err}
		}
	}
	conn, err := dialAny(ctx, addresses, port)
	if err != nil {
		return &OpenError{LayerTCP, endpoint, "check that the store runs and that no firewall is in between", err}
	}
	defer func() { _ = conn.Close() }()
	if secure {
		if conn, err = handshake(ctx, conn, cfg.TLS, host); err != nil {
			return &OpenError{LayerTLS, endpoint, tlsHint(err), err}
		}
	}
	if err := greet(ctx, conn); err != nil {
		if alert := (*net.OpError)(nil); secure && errors.As(err, &alert) && alert.Op == "remote error" {
			return &OpenError{LayerTLS, endpoint, tlsHint(err), err}
		}
		return &OpenError{LayerStore, endpoint, "something listens there that is not an etcd client port", err}
	}
	return checkVersion(ctx, cfg, endpoint)
}

func parseEndpoint(endpoint string) (host, port string, secure bool, err error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", "", false, err
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return "", "", false, fmt.Errorf("scheme %q is not https", u.Scheme)
	}
	if u.Hostname() == "" || u.Port() == "" {
		return "", "", false, errors.New("host or port is missing")
	}
	return u.Hostname(), u.Port(), u.Scheme == "https", nil
}

func dialAny(ctx context.Context, addresses []string, port string) (net.Conn, error) {
	var failed error
	for _, a := range addresses {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(a, port))
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

func handshake(ctx context.Context, conn net.Conn, conf *tls.Config, host string) (net.Conn, error) {
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName = host
	}
	conf.NextProtos = []string{"h2"}
	secured := tls.Client(conn, conf)
	return secured, secured.HandshakeContext(ctx)
}

// greet says hello in HTTP/2 and waits for the answer. With TLS 1.3 a server refuses our certificate only after our side
// of the handshake is done, so the first read tells.
func greet(ctx context.Context, conn net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	emptySettings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	if _, err := conn.Write(append([]byte(preface), emptySettings...)); err != nil {
		return err
	}
	frame := make([]byte, 9)
	if _, err := io.ReadFull(conn, frame); err != nil {
		return fmt.Errorf("wait for an HTTP/2 answer: %w", err)
	}
	if frame[3] != 4 {
		return fmt.Errorf("the answer is not HTTP/2 (%q)", frame)
	}
	return nil
}

// checkVersion asks the member itself; it needs no permission.
func checkVersion(ctx context.Context, cfg Config, endpoint string) *OpenError {
	cfg.Username, cfg.Password = "", "" // a wrong password is the next layer's to find
	client, err := clientv3.New(clientConfig(cfg, endpoint))
	if err != nil {
		return &OpenError{LayerStore, endpoint, "the etcd client could not be set up", err}
	}
	defer func() { _ = client.Close() }()
	resp, err := client.Status(ctx, endpoint)
	if err != nil {
		return &OpenError{LayerStore, endpoint, "the member answers no status request: look at its log", err}
	}
	if err := supported(resp.Version); err != nil {
		return &OpenError{LayerVersion, endpoint, "upgrade the shared etcd", err}
	}
	return nil
}

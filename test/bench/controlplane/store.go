// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/fairlead-mesh/fairlead/hack/lab/instance"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/store"
)

// storeWatch sees what west publishes.
type storeWatch struct {
	client *clientv3.Client
	seen   chan sighting
}

// sighting is an endpoint's address in the store, and when it was seen.
type sighting struct {
	address string
	at      time.Time
}

// watchStore reads as cluster east does.
func watchStore(ctx context.Context, lab *instance.Lab) (*storeWatch, error) {
	pki := filepath.Join(lab.Dir, "hub", "pki")
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, east+".crt"), filepath.Join(pki, east+".key"))
	if err != nil {
		return nil, fmt.Errorf("read east's credential: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(pki, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in the hub's ca.crt")
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + netip.AddrPortFrom(lab.Topology.UplinkEtcd(), 2379).String()}, DialTimeout: patience,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}, Logger: zap.NewNop(),
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the shared etcd: %w", err)
	}
	w := &storeWatch{client: c, seen: make(chan sighting, 1000)}
	changes := c.Watch(ctx, store.Root+west+"/"+record.KindSlice+"/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-changes
	go w.follow(changes)
	return w, nil
}

func (w *storeWatch) follow(changes clientv3.WatchChan) {
	defer close(w.seen)
	for resp := range changes {
		now := time.Now()
		for _, ev := range resp.Events {
			rec, err := record.Unmarshal(ev.Kv.Value)
			if err != nil {
				continue
			}
			for _, b := range rec.GetBackendSlice().GetBackends() {
				for _, a := range b.GetAddresses() {
					w.seen <- sighting{a, now}
				}
			}
		}
	}
}

func (w *storeWatch) await(ctx context.Context, address netip.Addr) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s was not published: %w", address, ctx.Err())
		case s, ok := <-w.seen:
			if !ok {
				return time.Time{}, errors.New("the watch of the shared etcd ended")
			}
			if s.address == address.String() {
				return s.at, nil
			}
		}
	}
}

func (w *storeWatch) close() { _ = w.client.Close() }

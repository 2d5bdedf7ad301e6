// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
)

func open(t *testing.T, e *storetest.Etcd, cluster string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Endpoints: []string{e.Endpoint()}, TLS: e.TLS(cluster), Cluster: cluster})
	if err != nil {
		t.Fatalf("open the store as %s: %v", cluster, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestOpenSaysWhichLayerFailed(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east", "west")
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // speaks, but neither TLS nor HTTP/2
		for {
			c, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail.example.com ESMTP\r\n"))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = plain.Close() })
	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = refused.Close()

	good := func() Config {
		return Config{Endpoints: []string{e.Endpoint()}, TLS: e.TLS("east"), Cluster: "east", Timeout: 5 * time.Second}
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		layer  Layer
		says   string
	}{
		"no endpoint":        {func(c *Config) { c.Endpoints = nil }, LayerConfig, "at least one endpoint"},
		"no scheme":          {func(c *Config) { c.Endpoints = []string{"etcd:2379"} }, LayerConfig, "https://host:port"},
		"no TLS settings":    {func(c *Config) { c.TLS = nil }, LayerConfig, "without TLS settings"},
		"unknown host":       {func(c *Config) { c.Endpoints = []string{"https://etcd.invalid:2379"} }, LayerDNS, "etcd.invalid"},
		"nobody listens":     {func(c *Config) { c.Endpoints = []string{"https://" + refused.Addr().String()} }, LayerTCP, "refused"},
		"not TLS":            {func(c *Config) { c.Endpoints = []string{"https://" + plain.Addr().String()} }, LayerTLS, "no TLS"},
		"not etcd":           {func(c *Config) { c.Endpoints, c.TLS = []string{"http://" + plain.Addr().String()}, nil }, LayerStore, "not an etcd client port"},
		"wrong CA":           {func(c *Config) { c.TLS = e.DistrustingTLS("east") }, LayerTLS, "ca.crt is not the CA"},
		"wrong host":         {func(c *Config) { c.TLS.ServerName = "elsewhere" }, LayerTLS, "not for this host name"},
		"stranger's cert":    {func(c *Config) { c.TLS = e.StrangerTLS("east") }, LayerTLS, "refuses this cluster's client certificate"},
		"no cert":            {func(c *Config) { c.TLS = e.TLS("") }, LayerTLS, "refuses this cluster's client certificate"},
		"no such user":       {func(c *Config) { c.TLS = e.TLS("nobody") }, LayerAuth, "no such user"},
		"another's cert":     {func(c *Config) { c.TLS = e.TLS("west") }, LayerAuth, "common name must be the cluster's name"},
		"wrong password":     {func(c *Config) { c.Username, c.Password = "password-user", "wrong" }, LayerAuth, "password is wrong"},
		"TLS to plain port":  {func(c *Config) { c.Endpoints = []string{strings.Replace(e.Endpoint(), "https", "http", 1)} }, LayerStore, ""},
		"cluster name wrong": {func(c *Config) { c.Cluster = "a/b" }, LayerConfig, "cluster name"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := good()
			tc.change(&conf)
			s, err := Open(t.Context(), conf)
			if err == nil {
				_ = s.Close()
				t.Fatal("opened")
			}
			var oe *OpenError
			if !errors.As(err, &oe) {
				t.Fatalf("not an OpenError: %v", err)
			}
			if oe.Layer != tc.layer || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want layer %s and %q", err, tc.layer, tc.says)
			}
		})
	}

	t.Run("right password", func(t *testing.T) {
		conf := good()
		conf.Username, conf.Password = "password-user", "right"
		s, err := Open(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
	})
	t.Run("one endpoint of two", func(t *testing.T) {
		conf := good()
		conf.Endpoints = append(conf.Endpoints, "https://"+refused.Addr().String())
		s, err := Open(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
	})
	t.Run("isolated", func(t *testing.T) {
		if !open(t, e, "east").Isolated() {
			t.Error("the store refuses writes outside the prefix, but Isolated says no")
		}
	})
}

func TestOpenWithoutAuthenticationIsNotIsolated(t *testing.T) {
	t.Parallel()
	e := storetest.Start(t, "east")
	if _, err := e.Admin().AuthDisable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if open(t, e, "east").Isolated() {
		t.Error("everybody may write everything, but Isolated says yes")
	}
}

// oldMember answers status requests as an etcd of some version.
type oldMember struct {
	etcdserverpb.UnimplementedMaintenanceServer
	version string
}

func (m oldMember) Status(context.Context, *etcdserverpb.StatusRequest) (*etcdserverpb.StatusResponse, error) {
	return &etcdserverpb.StatusResponse{Version: m.version}, nil
}

func startOldMember(t *testing.T, version string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	etcdserverpb.RegisterMaintenanceServer(g, oldMember{version: version})
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return "http://" + l.Addr().String()
}

func TestOpenRefusesOldVersions(t *testing.T) {
	t.Parallel()
	old := startOldMember(t, "3.6.8")
	_, err := Open(t.Context(), Config{Endpoints: []string{old}, Cluster: "east"})
	var oe *OpenError
	if !errors.As(err, &oe) || oe.Layer != LayerVersion {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"3.6.8", "3.6.11", "CVE-2026-33343", "CVE-2026-33413", "CVE-2026-44283"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %s", err, want)
		}
	}
	t.Run("even one of several", func(t *testing.T) {
		e := storetest.Start(t, "east")
		_, err := Open(t.Context(), Config{Endpoints: []string{e.Endpoint(), old}, TLS: e.TLS("east"), Cluster: "east"})
		if !errors.As(err, &oe) || oe.Layer != LayerVersion || oe.Endpoint != old {
			t.Fatalf("got %v", err)
		}
	})
}

func TestSupportedVersions(t *testing.T) {
	t.Parallel()
	for version, ok := range map[string]bool{
		"3.7.3": true, "3.7.0-rc.0": true, "4.0.0": true, "3.10.0": true,
		"3.6.11": true, "3.6.12": true, "3.6.10": false, "3.6.11-rc.1": false, "3.6.0": false,
		"3.5.30": true, "3.5.29": false, "3.4.44": false, "3.4.23": false, "2.3.8": false,
		"": false, "not.a.version": false, "3.6": false, "3.6.-1": false,
	} {
		if err := supported(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

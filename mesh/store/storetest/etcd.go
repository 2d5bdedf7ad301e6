// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package storetest runs a shared etcd inside a test, as in production: TLS with client certificates, authentication on,
// one user a cluster who may read everything and write its own prefix. It can be stopped, started, wiped and put back to
// an earlier state, on the same port throughout.
package storetest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
)

const root = "/fairlead/v1/"

// Etcd is a running (or stopped) shared etcd.
type Etcd struct {
	t        testing.TB
	dir      string
	clusters []string
	client   *url.URL
	peer     *url.URL
	ca       *authority
	server   *embed.Etcd
	saved    int
}

// Start runs an etcd with a user for each cluster. It ends with the test.
func Start(t testing.TB, clusters ...string) *Etcd {
	t.Helper()
	e := &Etcd{t: t, dir: t.TempDir(), clusters: clusters}
	e.ca = newAuthority(t)
	e.client, e.peer = freeURL(t, "https"), freeURL(t, "http")
	e.ca.writeServerFiles(t, e.dir)
	t.Cleanup(e.Stop)
	e.Up()
	e.setUpAuth()
	return e
}

// Endpoint is where clients connect.
func (e *Etcd) Endpoint() string { return e.client.String() }

// TLS gives a user's credentials. Anybody gets a certificate, with a user in the store or without.
func (e *Etcd) TLS(user string) *tls.Config { return e.ca.client(e.t, user) }

// Files gives a user's credentials as they lie in a Secret, in PEM.
func (e *Etcd) Files(user string) (ca, cert, key []byte) { return e.ca.clientFiles(e.t, user) }

// StrangerTLS gives credentials of a user from a CA that the store doesn't know; the store is trusted.
func (e *Etcd) StrangerTLS(user string) *tls.Config {
	conf := newAuthority(e.t).client(e.t, user)
	conf.RootCAs = e.ca.pool()
	return conf
}

// DistrustingTLS gives good credentials that trust another CA than the store's.
func (e *Etcd) DistrustingTLS(user string) *tls.Config {
	conf := e.ca.client(e.t, user)
	conf.RootCAs = newAuthority(e.t).pool()
	return conf
}

// Admin is a client of the store's root user. The caller need not close it.
func (e *Etcd) Admin() *clientv3.Client {
	e.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{e.Endpoint()}, TLS: e.TLS("root"), DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		e.t.Fatalf("connect to etcd as root: %v", err)
	}
	e.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Up starts the etcd again where it stopped.
func (e *Etcd) Up() {
	e.t.Helper()
	conf := embed.NewConfig()
	conf.Name = "shared"
	conf.Dir = e.data()
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{*e.client}, []url.URL{*e.client}
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{*e.peer}, []url.URL{*e.peer}
	conf.InitialCluster = conf.InitialClusterFromName(conf.Name)
	conf.ClientTLSInfo.CertFile = filepath.Join(e.dir, "server.crt")
	conf.ClientTLSInfo.KeyFile = filepath.Join(e.dir, "server.key")
	conf.ClientTLSInfo.TrustedCAFile = filepath.Join(e.dir, "ca.crt")
	conf.ClientTLSInfo.ClientCertAuth = true
	conf.BcryptCost = uint(bcrypt.MinCost)
	conf.UnsafeNoFsync = true
	conf.QuotaBackendBytes = 8 << 30 // for meshes of millions of records
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(conf)
	if err != nil {
		e.t.Fatalf("start etcd: %v", err)
	}
	e.server = server
	<-server.Server.ReadyNotify()
}

// Stop stops the etcd, if it runs. Its data stay.
func (e *Etcd) Stop() {
	if e.server != nil {
		e.server.Close()
		e.server = nil
	}
}

// Restart stops and starts the etcd.
func (e *Etcd) Restart() {
	e.t.Helper()
	e.Stop()
	e.Up()
}

// Wipe stops the etcd, throws all data away and starts it anew, users included.
func (e *Etcd) Wipe() {
	e.t.Helper()
	e.Stop()
	if err := os.RemoveAll(e.data()); err != nil {
		e.t.Fatalf("wipe etcd: %v", err)
	}
	e.Up()
	e.setUpAuth()
}

// Backup is a copy of the data at one time.
type Backup struct{ dir string }

// Backup copies the data. The etcd restarts for it.
func (e *Etcd) Backup() Backup {
	e.t.Helper()
	e.Stop()
	e.saved++
	b := Backup{filepath.Join(e.dir, fmt.Sprintf("backup-%d", e.saved))}
	e.copyData(e.data(), b.dir)
	e.Up()
	return b
}

// Restore puts a backup back, with the same member and cluster ids: the hardest case to notice.
func (e *Etcd) Restore(b Backup) {
	e.t.Helper()
	e.Stop()
	if err := os.RemoveAll(e.data()); err != nil {
		e.t.Fatalf("remove etcd's data: %v", err)
	}
	e.copyData(b.dir, e.data())
	e.Up()
}

func (e *Etcd) data() string { return filepath.Join(e.dir, "data") }

func (e *Etcd) copyData(from, to string) {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		e.t.Fatalf("copy etcd's data: %v", err)
	}
	if err := os.Chmod(to, 0o700); err != nil {
		e.t.Fatalf("copy etcd's data: %v", err)
	}
}

// setUpAuth makes the users as docs and the installer do.
func (e *Etcd) setUpAuth() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	admin := e.Admin()
	must := func(err error) {
		if err != nil {
			e.t.Helper()
			e.t.Fatalf("set up etcd's users: %v", err)
		}
	}
	addUser := func(name string) {
		_, err := admin.UserAddWithOptions(ctx, name, "", &clientv3.UserAddOptions{NoPassword: true})
		must(err)
		_, err = admin.UserGrantRole(ctx, name, name)
		must(err)
	}
	_, err := admin.RoleAdd(ctx, "root")
	must(err)
	addUser("root")
	for _, cluster := range e.clusters {
		_, err := admin.RoleAdd(ctx, cluster)
		must(err)
		own := root + cluster + "/"
		_, err = admin.RoleGrantPermission(ctx, cluster, root, clientv3.GetPrefixRangeEnd(root), clientv3.PermissionType(clientv3.PermRead))
		must(err)
		_, err = admin.RoleGrantPermission(ctx, cluster, own, clientv3.GetPrefixRangeEnd(own), clientv3.PermissionType(clientv3.PermReadWrite))
		must(err)
		addUser(cluster)
	}
	_, err = admin.UserAdd(ctx, "password-user", "right")
	must(err)
	if len(e.clusters) > 0 {
		_, err = admin.UserGrantRole(ctx, "password-user", e.clusters[0])
		must(err)
	}
	_, err = admin.AuthEnable(ctx)
	must(err)
}

func freeURL(t testing.TB, scheme string) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer func() { _ = l.Close() }()
	return &url.URL{Scheme: scheme, Host: l.Addr().String()}
}

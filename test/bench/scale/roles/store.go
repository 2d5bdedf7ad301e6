// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// StoreConfig of the shared etcd.
type StoreConfig struct {
	Dir   string
	Users []string // clusters
}

// serveStore runs the same etcd as the tests do: TLS, authentication, a user a cluster.
func serveStore() error {
	var etcd *storetest.Etcd
	var t *benchT
	return errors.Join(process.Serve(process.Handlers{
		"start": process.Call(func(cfg StoreConfig) (None, error) {
			t = &benchT{dir: cfg.Dir}
			etcd = storetest.Start(t, cfg.Users...)
			return None{}, writeCredentials(etcd, cfg)
		}),
		"endpoint": process.Call(func(None) (string, error) { return etcd.Endpoint(), nil }),
		"stop":     process.Call(func(None) (None, error) { etcd.Stop(); return None{}, nil }),
		"up":       process.Call(func(None) (None, error) { etcd.Up(); return None{}, nil }),
		"heap":     process.Call(heap),
	}), t.end())
}

func writeCredentials(etcd *storetest.Etcd, cfg StoreConfig) error {
	for _, user := range cfg.Users {
		ca, cert, key := etcd.Files(user)
		for name, data := range map[string][]byte{"ca": ca, "crt": cert, "key": key} {
			if err := os.WriteFile(filepath.Join(cfg.Dir, user+"."+name), data, 0o600); err != nil {
				return fmt.Errorf("write the credential of %s: %w", user, err)
			}
		}
	}
	return nil
}

// StoreTLS reads a user's credential.
func StoreTLS(dir, user string) (*tls.Config, error) {
	base := filepath.Join(dir, user)
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	if err != nil {
		return nil, fmt.Errorf("read the credential of %s: %w", user, err)
	}
	pem, err := os.ReadFile(base + ".ca")
	if err != nil {
		return nil, fmt.Errorf("read the credential of %s: %w", user, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s.ca holds no certificate", base)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}

// benchT is what storetest needs of a test, outside of one. The embedded interface is never called.
type benchT struct {
	testing.TB
	dir      string
	made     int
	cleanups []func()
}

func (*benchT) Helper()            {}
func (t *benchT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }
func (t *benchT) Fatalf(format string, args ...any) {
	panic("store: " + fmt.Sprintf(format, args...))
}

func (t *benchT) TempDir() string {
	t.made++
	dir := filepath.Join(t.dir, fmt.Sprintf("etcd-%d", t.made))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("make %s: %v", dir, err)
	}
	return dir
}

func (t *benchT) end() error {
	if t == nil {
		return nil
	}
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
	return nil
}

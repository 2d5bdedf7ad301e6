// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"testing"
)

func TestIssueKeepsWhatStillFits(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(dir, "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	s := Subject{CommonName: "server", Organizations: []string{"o"}, Names: []string{"server.test"},
		Addrs: []netip.Addr{netip.MustParseAddr("10.11.0.1"), netip.MustParseAddr("fd00:11::1")}}
	cert, key, err := a.Issue("server", s)
	if err != nil {
		t.Fatal(err)
	}
	first := content(t, cert)
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		t.Fatalf("the pair does not load: %v", err)
	}

	again, err := Open(dir, "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.Issue("server", s); err != nil {
		t.Fatal(err)
	}
	if content(t, cert) != first {
		t.Error("a certificate that fits was replaced")
	}

	s.Addrs = s.Addrs[:1]
	if _, _, err := again.Issue("server", s); err != nil {
		t.Fatal(err)
	}
	if content(t, cert) == first {
		t.Error("a certificate for other addresses was kept")
	}

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(content(t, a.CertFile())))
	parsed, _, err := read(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsed.Verify(x509.VerifyOptions{Roots: roots, DNSName: "server.test"}); err != nil {
		t.Errorf("does not verify against its authority: %v", err)
	}
}

func TestBrokenFilesAreReplaced(t *testing.T) {
	dir := t.TempDir()
	a, err := Open(dir, "test-ca")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue("x", Subject{CommonName: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Issue("x", Subject{CommonName: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		t.Errorf("the pair is still broken: %v", err)
	}
}

func content(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

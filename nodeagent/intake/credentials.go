// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Token reads the agent's token each time it is needed: the kubelet renews it.
func Token(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		return strings.TrimSpace(string(b)), nil
	}
}

// TLS trusts the relay's own authority alone. Its certificate is read for each connection: the operator writes it, and may
// do so after the agent has started.
func TLS(caFile, serverName string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: serverName,
		// Not less verified but elsewhere: crypto/tls would take the authority once and for all.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyRelay(caFile, serverName, s.PeerCertificates)
		},
	}
}

func verifyRelay(caFile, serverName string, chain []*x509.Certificate) error {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("reading the relay's authority (the operator writes it to the ConfigMap fairlead-relay-ca): %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("no certificate in %s", caFile)
	}
	if len(chain) == 0 {
		return errors.New("the relay shows no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: serverName}); err != nil {
		return fmt.Errorf("the relay's certificate: %w", err)
	}
	return nil
}

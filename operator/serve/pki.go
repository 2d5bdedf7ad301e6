// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	caLife      = 10 * 365 * 24 * time.Hour
	leafLife    = 90 * 24 * time.Hour
	renewBefore = 30 * 24 * time.Hour
	backdate    = 5 * time.Minute // for nodes whose clocks are behind
)

// renew gives the Secret's data with everything in it usable at a time, and says whether that took a change.
func renew(data map[string][]byte, names []string, now time.Time) (map[string][]byte, bool, error) {
	data = maps.Clone(data)
	if data == nil {
		data = map[string][]byte{}
	}
	renewed := false
	ca, caPrivate, err := readPair(data[caKey], data[caKeyKey])
	if err != nil || now.After(ca.NotAfter.Add(-renewBefore)) {
		renewed = true
		if ca, caPrivate, err = newCA(now); err != nil {
			return nil, false, fmt.Errorf("make the relay's CA: %w", err)
		}
		data[caKey] = encodeCert(ca)
		if data[caKeyKey], err = encodeKey(caPrivate); err != nil {
			return nil, false, err
		}
	}
	leaf, _, err := readPair(data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey])
	if err == nil && usable(leaf, ca, names, now) {
		return data, renewed, nil
	}
	leaf, private, err := newLeaf(ca, caPrivate, names, now)
	if err != nil {
		return nil, false, fmt.Errorf("make the relay's certificate: %w", err)
	}
	data[corev1.TLSCertKey] = encodeCert(leaf)
	if data[corev1.TLSPrivateKeyKey], err = encodeKey(private); err != nil {
		return nil, false, err
	}
	return data, true, nil
}

func readPair(cert, key []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, err
	}
	private, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("not an ECDSA key")
	}
	return pair.Leaf, private, nil
}

func newCA(now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "fairlead-relay-ca"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	cert, err := sign(template, template, &private.PublicKey, private)
	return cert, private, err
}

func newLeaf(ca *x509.Certificate, caPrivate *ecdsa.PrivateKey, names []string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: ServerName},
		NotBefore:   now.Add(-backdate),
		NotAfter:    now.Add(leafLife),
		DNSNames:    names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	cert, err := sign(template, ca, &private.PublicKey, caPrivate)
	return cert, private, err
}

func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func encodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

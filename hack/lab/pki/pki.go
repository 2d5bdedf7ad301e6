// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pki keeps small certificate authorities in directories and issues
// certificates from them. A certificate that is there, still valid and for
// the same names stays, so that a second run of the lab disturbs nobody.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	validity = 365 * 24 * time.Hour
	// renewBefore replaces what would end while an instance is in use.
	renewBefore = 30 * 24 * time.Hour
)

// Authority is a certificate authority: ca.crt and ca.key in a directory.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Subject says what a certificate is for.
type Subject struct {
	CommonName    string
	Organizations []string
	Names         []string
	Addrs         []netip.Addr
}

// Open opens the authority in dir, and makes it first if there is none.
func Open(dir, name string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of authority %s: %w", name, err)
	}
	a := &Authority{dir: dir}
	cert, key, err := read(a.CertFile(), a.file("ca.key"))
	if err == nil && time.Until(cert.NotAfter) > renewBefore {
		a.cert, a.key = cert, key
		return a, nil
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("make key of authority %s: %w", name, err)
	}
	if a.cert, err = a.sign("ca", template, a.key); err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	return a, nil
}

// CertFile is the authority's own certificate.
func (a *Authority) CertFile() string { return a.file("ca.crt") }

// Issue makes sure that NAME.crt and NAME.key in the authority's directory
// hold a certificate for the subject, good for client and server use, and
// tells where they are.
func (a *Authority) Issue(name string, s Subject) (cert, key string, err error) {
	cert, key = a.file(name+".crt"), a.file(name+".key")
	if old, _, err := read(cert, key); err == nil && a.covers(old, s) {
		return cert, key, nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: s.CommonName, Organization: s.Organizations},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    s.Names,
	}
	for _, addr := range s.Addrs {
		template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make key %s: %w", key, err)
	}
	if _, err := a.sign(name, template, private); err != nil {
		return "", "", fmt.Errorf("issue %s: %w", cert, err)
	}
	return cert, key, nil
}

func (a *Authority) covers(cert *x509.Certificate, s Subject) bool {
	var addrs []netip.Addr
	for _, ip := range cert.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return time.Until(cert.NotAfter) > renewBefore &&
		cert.CheckSignatureFrom(a.cert) == nil &&
		cert.Subject.CommonName == s.CommonName &&
		slices.Equal(cert.Subject.Organization, s.Organizations) &&
		slices.Equal(cert.DNSNames, s.Names) &&
		slices.Equal(addrs, s.Addrs)
}

func (a *Authority) file(name string) string { return filepath.Join(a.dir, name) }

// sign completes the template, signs it with the authority's key and writes
// both files, the key first: a certificate without its key is never found.
func (a *Authority) sign(name string, template *x509.Certificate, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(validity)
	parent := a.cert
	if template.IsCA {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if err := WriteKey(a.file(name+".key"), key); err != nil {
		return nil, err
	}
	if err := writePEM(a.file(name+".crt"), "CERTIFICATE", der, 0o644); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// WriteKey writes a private key in PEM form.
func WriteKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", file, err)
	}
	return writePEM(file, "EC PRIVATE KEY", der, 0o600)
}

// EnsureKey makes a bare private key unless the file is there.
func EnsureKey(file string) error {
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key %s: %w", file, err)
	}
	return WriteKey(file, key)
}

// writePEM writes the whole file or nothing.
func writePEM(file, kind string, der []byte, mode os.FileMode) error {
	next := file + ".new"
	if err := os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.Rename(next, file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}

func read(certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certDER, err := readPEM(certFile)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := readPEM(keyFile)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("parse %s: %w", certFile, err)
	}
	key, err := x509.ParseECPrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("parse %s: %w", keyFile, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("%s does not belong to %s", keyFile, certFile)
	}
	return cert, key, nil
}

func readPEM(file string) ([]byte, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate files: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", file)
	}
	return block.Bytes, nil
}

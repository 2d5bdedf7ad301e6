// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Layer is a step of reaching the store.
type Layer string

// Layers, in the order in which they are tried.
const (
	LayerConfig  Layer = "Config"
	LayerDNS     Layer = "DNS"
	LayerTCP     Layer = "TCP"
	LayerTLS     Layer = "TLS"
	LayerStore   Layer = "Store" // something answers, but not as a working etcd
	LayerVersion Layer = "Version"
	LayerAuth    Layer = "Auth"
)

func (l Layer) rank() int {
	return slices.Index([]Layer{LayerConfig, LayerDNS, LayerTCP, LayerTLS, LayerStore, LayerVersion, LayerAuth}, l)
}

// OpenError says which layer failed first, where, why, and what to do about it.
type OpenError struct {
	Layer    Layer
	Endpoint string
	Hint     string
	Err      error
}

// Error reads as "shared etcd https://…: TLS: <what happened> (<what to do>)".
func (e *OpenError) Error() string {
	where := "shared etcd"
	if e.Endpoint != "" {
		where += " " + e.Endpoint
	}
	return fmt.Sprintf("%s: %s: %v (%s)", where, e.Layer, e.Err, e.Hint)
}

// Unwrap gives the underlying error.
func (e *OpenError) Unwrap() error { return e.Err }

// classify turns an answer of the store into the layer it belongs to; fallback is for those that say nothing.
func classify(fallback Layer, endpoint string, err error) *OpenError {
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
	}
	switch {
	case is(rpctypes.ErrAuthFailed, rpctypes.ErrGRPCAuthFailed):
		return &OpenError{LayerAuth, endpoint, "the user name or password is wrong", err}
	case is(rpctypes.ErrPermissionDenied):
		return &OpenError{LayerAuth, endpoint, "the store knows no such user, or the user lacks a role with read on " + Root +
			" and readwrite on its own prefix; the certificate's common name must be the cluster's name", err}
	case is(rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrInvalidAuthToken):
		return &OpenError{LayerAuth, endpoint, "log in with a client certificate whose common name is the cluster's name, and start the store with --client-cert-auth", err}
	case is(rpctypes.ErrNoSpace):
		return &OpenError{LayerStore, endpoint, "the store is full: compact, defragment, then clear its NOSPACE alarm", err}
	case unavailable(err):
		return &OpenError{LayerStore, endpoint, "the store answers but does not serve: is a majority of its members up?", err}
	}
	return &OpenError{fallback, endpoint, "look at the store's log", err}
}

func unavailable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	code := status.Code(err)
	if e := (rpctypes.EtcdError{}); errors.As(err, &e) {
		code = e.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

func tlsHint(err error) string {
	if e := (x509.UnknownAuthorityError{}); errors.As(err, &e) {
		return "ca.crt is not the CA that signed the store's certificate"
	}
	if e := (x509.HostnameError{}); errors.As(err, &e) {
		return "the store's certificate is not for this host name"
	}
	if e := (x509.CertificateInvalidError{}); errors.As(err, &e) {
		return "the store's certificate is expired or not fit for a server"
	}
	if e := (tls.RecordHeaderError{}); errors.As(err, &e) {
		return "the port speaks no TLS"
	}
	if strings.Contains(err.Error(), "remote error: tls:") {
		return "the store refuses this cluster's client certificate: is it expired, or signed by another CA than the store trusts?"
	}
	return "look at the store's certificate and at this cluster's"
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// settings are what a connection to the shared etcd is made from.
type settings struct {
	cluster   string
	endpoints []string
	tls       *tls.Config
	version   string // of the Secret, so that new credentials mean a new connection
}

func (s *settings) same(o *settings) bool {
	return s != nil && o != nil && s.cluster == o.cluster && s.version == o.version && slices.Equal(s.endpoints, o.endpoints)
}

var (
	errNoMesh    = errors.New("there is no ClusterMesh named \"mesh\"")
	errSuspended = errors.New("the ClusterMesh is suspended")
)

// readSettings reads the ClusterMesh and its Secret.
func readSettings(ctx context.Context, r client.Reader, namespace string) (*settings, error) {
	mesh := &v1alpha1.ClusterMesh{}
	if err := r.Get(ctx, client.ObjectKey{Name: MeshName}, mesh); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, errNoMesh
		}
		return nil, fmt.Errorf("read the ClusterMesh: %w", err)
	}
	if mesh.Spec.Suspend {
		return nil, errSuspended
	}
	name := mesh.Spec.Store.TLSSecretRef.Name
	secret := &corev1.Secret{}
	if err := r.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("there is no Secret %s/%s, which spec.store.tlsSecretRef names", namespace, name)
		}
		return nil, fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	}
	cfg, err := tlsFrom(secret, mesh.Spec.ClusterName)
	if err != nil {
		return nil, fmt.Errorf("Secret %s/%s: %w", namespace, name, err)
	}
	return &settings{
		cluster: mesh.Spec.ClusterName, endpoints: mesh.Spec.Store.Endpoints, tls: cfg,
		version: fingerprint(secret),
	}, nil
}

// fingerprint tells credentials apart; a Secret that is only relabelled is the same one.
func fingerprint(secret *corev1.Secret) string {
	h := sha256.New()
	for _, key := range []string{"ca.crt", corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		fmt.Fprintf(h, "%d:", len(secret.Data[key]))
		h.Write(secret.Data[key])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// tlsFrom checks the credential here, where the mistake can be named; the store would only say "permission denied".
func tlsFrom(secret *corev1.Secret, cluster string) (*tls.Config, error) {
	for _, key := range []string{"ca.crt", corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if len(secret.Data[key]) == 0 {
			return nil, fmt.Errorf("it has no %s", key)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		return nil, errors.New("ca.crt holds no certificate")
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("tls.crt and tls.key: %w", err)
	}
	block, _ := pem.Decode(secret.Data[corev1.TLSCertKey])
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	if leaf.Subject.CommonName != cluster {
		return nil, fmt.Errorf("the certificate's common name is %q and must be the cluster's name, %q", leaf.Subject.CommonName, cluster)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}, nil
}

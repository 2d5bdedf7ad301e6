// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// TLSSecret holds the relay's CA and certificate.
	TLSSecret = "fairlead-relay-tls"
	// CAConfigMap publishes the CA's certificate, under ca.crt.
	CAConfigMap = "fairlead-relay-ca"
	// ServerName is what agents expect in the certificate, whatever address they dial.
	ServerName = "fairlead-relay"

	caKeyKey = "ca.key"
	caKey    = "ca.crt"
)

// Certificates keeps the relay's CA and certificate. The leader makes and renews them; the CA outlives certificates, so
// agents need not be told anything when one is renewed.
//
// +kubebuilder:rbac:groups="",resources=secrets;configmaps,verbs=get;list;watch;create;update;patch,namespace=fairlead-system
type Certificates struct {
	Client    client.Client
	Namespace string
	Log       *slog.Logger
}

// NeedLeaderElection says that only the leader writes them.
func (c *Certificates) NeedLeaderElection() bool { return true }

// Start makes them, then looks after them until ctx ends.
func (c *Certificates) Start(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = time.Minute
		if err := c.ensure(ctx, time.Now()); err != nil {
			c.Log.Error("keep the relay's certificate", "error", err)
			wait = 2 * time.Second
		}
	}
}

func (c *Certificates) ensure(ctx context.Context, now time.Time) error {
	secret := &corev1.Secret{}
	err := c.Client.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: TLSSecret}, secret)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("read Secret %s: %w", TLSSecret, err)
	}
	data, renewed, err := renew(secret.Data, serverNames(c.Namespace), now)
	if err != nil {
		return err
	}
	switch {
	case missing:
		secret = &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: TLSSecret},
			Type:       corev1.SecretTypeTLS, Data: data,
		}
		err = c.Client.Create(ctx, secret)
	case renewed:
		secret.Data = data
		err = c.Client.Update(ctx, secret)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s: %w", TLSSecret, err)
	}
	if missing || renewed {
		c.Log.Info("relay certificate written", "secret", c.Namespace+"/"+TLSSecret)
	}
	return c.publishCA(ctx, data[caKey])
}

func (c *Certificates) publishCA(ctx context.Context, ca []byte) error {
	cm := &corev1.ConfigMap{}
	err := c.Client.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: CAConfigMap}, cm)
	switch {
	case apierrors.IsNotFound(err):
		cm = &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: CAConfigMap},
			Data:       map[string]string{caKey: string(ca)},
		}
		err = c.Client.Create(ctx, cm)
	case err == nil && cm.Data[caKey] != string(ca):
		cm.Data = map[string]string{caKey: string(ca)}
		err = c.Client.Update(ctx, cm)
	}
	if err != nil {
		return fmt.Errorf("publish the relay's CA in ConfigMap %s: %w", CAConfigMap, err)
	}
	return nil
}

func serverNames(namespace string) []string {
	names := []string{"localhost", ServerName, "fairlead-operator"}
	for _, n := range []string{ServerName, "fairlead-operator"} {
		names = append(names, n+"."+namespace, n+"."+namespace+".svc", n+"."+namespace+".svc.cluster.local")
	}
	return names
}

// errNoCertificate says that the leader has not written the certificate yet.
var errNoCertificate = errors.New("the relay's certificate is not there yet")

// serverConfig gives a TLS configuration that reads the newest certificate for each connection.
func serverConfig(r client.Reader, namespace string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return currentCertificate(h.Context(), r, namespace)
		},
	}
}

func currentCertificate(ctx context.Context, r client.Reader, namespace string) (*tls.Certificate, error) {
	secret := &corev1.Secret{}
	if err := r.Get(ctx, client.ObjectKey{Namespace: namespace, Name: TLSSecret}, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, errNoCertificate
		}
		return nil, fmt.Errorf("read Secret %s: %w", TLSSecret, err)
	}
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("Secret %s: %w", TLSSecret, err)
	}
	return &pair, nil
}

// usable says whether a certificate is one of the CA's, for these names, for a while longer.
func usable(leaf, ca *x509.Certificate, names []string, now time.Time) bool {
	if now.After(leaf.NotAfter.Add(-renewBefore)) || !bytes.Equal(leaf.RawIssuer, ca.RawSubject) || leaf.CheckSignatureFrom(ca) != nil {
		return false
	}
	for _, n := range names {
		if leaf.VerifyHostname(n) != nil {
			return false
		}
	}
	return true
}

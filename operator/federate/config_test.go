// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// credential makes a self-signed certificate for a name, with itself as the CA.
func credential(t *testing.T, name string) map[string][]byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return map[string][]byte{
		"ca.crt": certPEM, "tls.crt": certPEM, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}
}

func TestReadSettings(t *testing.T) {
	good := credential(t, "east")
	with := func(change func(map[string][]byte)) map[string][]byte {
		data := maps.Clone(good)
		change(data)
		return data
	}
	for _, tt := range []struct {
		name    string
		noMesh  bool
		suspend bool
		secret  map[string][]byte
		want    string
	}{
		{name: "good", secret: good},
		{name: "no ClusterMesh", noMesh: true, want: "there is no ClusterMesh"},
		{name: "suspended", suspend: true, secret: good, want: "suspended"},
		{name: "no Secret", want: "there is no Secret fairlead-system/store, which spec.store.tlsSecretRef names"},
		{name: "no key", secret: with(func(d map[string][]byte) { delete(d, "tls.key") }), want: "Secret fairlead-system/store: it has no tls.key"},
		{name: "CA is not a certificate", secret: with(func(d map[string][]byte) { d["ca.crt"] = []byte("x") }), want: "ca.crt holds no certificate"},
		{name: "key of another certificate", secret: with(func(d map[string][]byte) { d["tls.key"] = credential(t, "east")["tls.key"] }), want: "tls.crt and tls.key"},
		{name: "another cluster's credential", secret: credential(t, "west"), want: "common name is \"west\" and must be the cluster's name, \"east\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scheme := runtime.NewScheme()
			if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
				t.Fatal(err)
			}
			var objects []client.Object
			if !tt.noMesh {
				objects = append(objects, &v1alpha1.ClusterMesh{ObjectMeta: metav1.ObjectMeta{Name: MeshName}, Spec: v1alpha1.ClusterMeshSpec{
					ClusterName: "east", Suspend: tt.suspend,
					Store: v1alpha1.StoreSpec{Endpoints: []string{"https://x:2379"}, TLSSecretRef: corev1.LocalObjectReference{Name: "store"}},
				}})
			}
			if tt.secret != nil {
				objects = append(objects, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "fairlead-system", Name: "store"}, Data: tt.secret})
			}
			got, err := readSettings(t.Context(), fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build(), "fairlead-system")
			if tt.want == "" {
				if err != nil || got.cluster != "east" || len(got.tls.Certificates) != 1 || got.tls.RootCAs == nil {
					t.Errorf("readSettings = %+v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("readSettings: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOnlyNewCredentialsMeanANewConnection(t *testing.T) {
	secret := &corev1.Secret{Data: credential(t, "east")}
	s := &settings{cluster: "east", endpoints: []string{"https://a"}, version: fingerprint(secret)}
	secret.Labels = map[string]string{"touched": "yes"}
	if !s.same(&settings{cluster: "east", endpoints: []string{"https://a"}, version: fingerprint(secret)}) {
		t.Error("a label is a new credential")
	}
	secret.Data = credential(t, "east")
	if s.same(&settings{cluster: "east", endpoints: []string{"https://a"}, version: fingerprint(secret)}) {
		t.Error("a new certificate is the old one")
	}
	if s.same(&settings{cluster: "east", endpoints: []string{"https://b"}, version: s.version}) {
		t.Error("another endpoint is the old one")
	}
}

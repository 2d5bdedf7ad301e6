// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

const ns = "fairlead-system"

// reviewer answers TokenReviews.
type reviewer struct {
	asked  int
	down   bool
	status authenticationv1.TokenReviewStatus
}

func (r *reviewer) client() client.Client {
	return fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.CreateOption) error {
			tr := o.(*authenticationv1.TokenReview)
			r.asked++
			if r.down {
				return errors.New("connection refused")
			}
			if len(tr.Spec.Audiences) != 1 || tr.Spec.Audiences[0] != Audience {
				return errors.New("audience missing")
			}
			tr.Status = r.status
			return nil
		},
	}).Build()
}

func agent(user, node string) authenticationv1.TokenReviewStatus {
	s := authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: user}}
	if node != "" {
		s.User.Extra = map[string]authenticationv1.ExtraValue{nodeNameExtra: {node}}
	}
	return s
}

const agentUser = "system:serviceaccount:fairlead-system:fairlead-nodeagent"

func TestWhoMayConnect(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status authenticationv1.TokenReviewStatus
		want   string
	}{
		{"an agent", agent(agentUser, "n1"), ""},
		{"not a token", authenticationv1.TokenReviewStatus{Error: "bad"}, "not valid for audience"},
		{"another service account", agent("system:serviceaccount:fairlead-system:default", "n1"), "belongs to system:serviceaccount:fairlead-system:default"},
		{"the name in another namespace", agent("system:serviceaccount:shop:fairlead-nodeagent", "n1"), "belongs to"},
		{"a token of no pod", agent(agentUser, ""), "names no node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &reviewer{status: tt.status}
			node, err := NewTokens(r.client(), ns).Authenticate(t.Context(), "t")
			if tt.want == "" && (err != nil || node != "n1") {
				t.Errorf("Authenticate = %q, %v", node, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || node != "") {
				t.Errorf("Authenticate = %q, %v; want %q", node, err, tt.want)
			}
		})
	}
}

func TestTokensAreRemembered(t *testing.T) {
	r := &reviewer{status: agent(agentUser, "n1")}
	now := time.Unix(0, 0)
	tokens := NewTokens(r.client(), ns)
	tokens.now = func() time.Time { return now }
	check := func(when string, ok bool, asked int) {
		t.Helper()
		if _, err := tokens.Authenticate(t.Context(), "t"); (err == nil) != ok {
			t.Errorf("%s: %v", when, err)
		}
		if r.asked != asked {
			t.Errorf("%s: asked %d times, want %d", when, r.asked, asked)
		}
	}
	check("first", true, 1)
	now = now.Add(trustFor - time.Second)
	check("within a minute", true, 1)
	now = now.Add(2 * time.Second)
	check("after a minute", true, 2)
	r.down = true
	now = now.Add(trustAtMost - time.Second)
	check("API server down", true, 3)
	now = now.Add(2 * time.Second)
	check("API server down for long", false, 4)
	r.down, r.status = false, authenticationv1.TokenReviewStatus{}
	check("revoked", false, 5)
	check("refused again at once", false, 5)
	r.status = agent(agentUser, "n1")
	now = now.Add(distrustFor)
	check("valid again", true, 6)
	if _, err := tokens.Authenticate(t.Context(), "other"); err != nil || r.asked != 7 {
		t.Errorf("another token: %v, asked %d", err, r.asked)
	}
}

func TestRenew(t *testing.T) {
	names, now := serverNames(ns), time.Now()
	data, renewed, err := renew(nil, names, now)
	if err != nil || !renewed {
		t.Fatalf("first: %t, %v", renewed, err)
	}
	same, renewed, err := renew(data, names, now.Add(leafLife-renewBefore-time.Hour))
	if err != nil || renewed || !bytes.Equal(same[corev1.TLSCertKey], data[corev1.TLSCertKey]) {
		t.Errorf("while fresh: renewed %t, %v", renewed, err)
	}
	later := now.Add(leafLife - renewBefore + time.Hour)
	next, renewed, err := renew(data, names, later)
	if err != nil || !renewed || bytes.Equal(next[corev1.TLSCertKey], data[corev1.TLSCertKey]) || !bytes.Equal(next[caKey], data[caKey]) {
		t.Errorf("near its end: renewed %t (the CA must stay), %v", renewed, err)
	}
	if _, renewed, _ = renew(data, append(names, "new.example"), now); !renewed {
		t.Error("a new name needs a new certificate")
	}
	data[corev1.TLSPrivateKeyKey] = []byte("broken")
	healed, renewed, err := renew(data, names, now)
	if err != nil || !renewed || !bytes.Equal(healed[caKey], data[caKey]) {
		t.Errorf("a broken key: renewed %t, %v", renewed, err)
	}
}

// handshake is a relay that only greets.
type handshake struct{ greeted chan struct{} }

func (h handshake) Serve(ctx context.Context, lis net.Listener, creds credentials.TransportCredentials) error {
	stop := context.AfterFunc(ctx, func() { lis.Close() })
	defer stop()
	for {
		conn, err := lis.Accept()
		if err != nil {
			return nil
		}
		_, _, err = creds.ServerHandshake(conn)
		if err == nil {
			h.greeted <- struct{}{}
		}
		conn.Close()
	}
}

func TestRelayOpensWithACertificateThatAgentsTrust(t *testing.T) {
	kube := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).Build()
	log := slog.New(slog.DiscardHandler)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := lis.Addr().String()
	lis.Close()
	ready, h := make(chan struct{}), handshake{make(chan struct{}, 1)}
	relay := &Relay{Address: address, Namespace: ns, Server: h, Reader: kube, Ready: ready, Log: log}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.Start(ctx) }()
	if relay.Open() {
		t.Error("open before anything is known")
	}
	close(ready)
	certificates := &Certificates{Client: kube, Namespace: ns, Log: log}
	if err := certificates.ensure(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	cm := &corev1.ConfigMap{}
	if err := kube.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: CAConfigMap}, cm); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(cm.Data["ca.crt"]))
	cfg := &tls.Config{RootCAs: roots, ServerName: ServerName, NextProtos: []string{"h2"}}
	for !relay.Open() {
		time.Sleep(10 * time.Millisecond)
	}
	var conn *tls.Conn
	for {
		if conn, err = tls.Dial("tcp", address, cfg); err == nil {
			break
		}
		if !errors.As(err, new(*net.OpError)) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	conn.Close()
	<-h.greeted
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Start: %v", err)
	}
	if relay.Open() {
		t.Error("still open after the end")
	}

	// The CA of the Secret is what is published, whatever happens to the ConfigMap.
	cm.Data["ca.crt"] = "tampered"
	if err := kube.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	if err := certificates.ensure(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := kube.Get(t.Context(), client.ObjectKeyFromObject(cm), cm); err != nil || cm.Data["ca.crt"] == "tampered" {
		t.Errorf("the ConfigMap was not put right: %v", err)
	}
}

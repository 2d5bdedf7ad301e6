// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Audience is what agents' tokens must be issued for, so that a token that leaks elsewhere opens nothing here.
	Audience = "fairlead-relay"
	// AgentAccount is the service account that agents run as, in the operator's namespace.
	AgentAccount = "fairlead-nodeagent"

	nodeNameExtra = "authentication.kubernetes.io/node-name"

	// A checked token counts for trustFor without asking again, and for trustAtMost while the API server doesn't
	// answer: an agent that reconnects during an outage is not cut off.
	trustFor    = time.Minute
	trustAtMost = 5 * time.Minute
	// distrustFor bounds how often a refused token is checked again.
	distrustFor = 5 * time.Second
	cacheSize   = 4096
)

// Tokens checks agents' tokens with the API server.
//
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
type Tokens struct {
	client  client.Client
	account string
	now     func() time.Time

	mu    sync.Mutex
	known map[[sha256.Size]byte]verdict
}

// verdict is the outcome of a check. Only the token's hash is kept.
type verdict struct {
	at   time.Time
	node string
	err  error // a refusal by the API server, not a failure to ask
}

// NewTokens makes Tokens for agents in a namespace.
func NewTokens(c client.Client, namespace string) *Tokens {
	return &Tokens{
		client: c, account: "system:serviceaccount:" + namespace + ":" + AgentAccount, now: time.Now,
		known: map[[sha256.Size]byte]verdict{},
	}
}

// Authenticate gives the node that a token was issued to.
func (t *Tokens) Authenticate(ctx context.Context, token string) (string, error) {
	hash := sha256.Sum256([]byte(token))
	was, seen := t.recall(hash)
	age := t.now().Sub(was.at)
	if seen && (was.err == nil && age < trustFor || was.err != nil && age < distrustFor) {
		return was.node, was.err
	}
	node, refusal, err := t.review(ctx, token)
	if err != nil {
		if seen && was.err == nil && age < trustAtMost {
			return was.node, nil
		}
		return "", err
	}
	t.remember(hash, verdict{at: t.now(), node: node, err: refusal})
	return node, refusal
}

func (t *Tokens) recall(hash [sha256.Size]byte) (verdict, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.known[hash]
	return v, ok
}

func (t *Tokens) remember(hash [sha256.Size]byte, v verdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= cacheSize {
		for h, old := range t.known {
			if old.err != nil || t.now().Sub(old.at) > trustAtMost {
				delete(t.known, h)
			}
		}
	}
	if len(t.known) < cacheSize {
		t.known[hash] = v
	}
}

// review asks the API server. refusal is its answer, err a failure to get one.
func (t *Tokens) review(ctx context.Context, token string) (node string, refusal, err error) {
	tr := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{Audience}}}
	if err := t.client.Create(ctx, tr); err != nil {
		return "", nil, fmt.Errorf("ask the API server about a token: %w", err)
	}
	user := tr.Status.User
	switch {
	case !tr.Status.Authenticated:
		return "", fmt.Errorf("the token is not valid for audience %s: %s", Audience, tr.Status.Error), nil
	case user.Username != t.account:
		return "", fmt.Errorf("the token belongs to %s and not to %s", user.Username, t.account), nil
	case len(user.Extra[nodeNameExtra]) != 1 || user.Extra[nodeNameExtra][0] == "":
		return "", errors.New("the token names no node"), nil
	}
	return user.Extra[nodeNameExtra][0], nil, nil
}

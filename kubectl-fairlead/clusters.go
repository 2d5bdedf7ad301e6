// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clusterFlags choose the clusters that are asked. Both can be given several times: one kubeconfig with several
// contexts, several kubeconfigs with their current contexts, or pairs of both.
type clusterFlags struct {
	kubeconfigs []string
	contexts    []string
}

func (f *clusterFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.kubeconfigs, "kubeconfig", nil, "kubeconfig file; repeat it to ask several clusters")
	flags.StringArrayVar(&f.contexts, "context", nil, "context of the kubeconfig; repeat it to ask several clusters")
}

// cluster is one that is asked.
type cluster struct {
	name   string
	config *rest.Config
}

// clusters resolves the flags. Whatever can't be resolved is a usage error: nothing was asked yet.
func (f *clusterFlags) clusters() ([]cluster, error) {
	pairs, err := f.pairs()
	if err != nil {
		return nil, err
	}
	var out []cluster
	for _, p := range pairs {
		rules := clientcmd.NewDefaultClientConfigLoadingRules()
		if p.kubeconfig != "" {
			rules.ExplicitPath = p.kubeconfig
		}
		loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: p.context})
		config, err := loader.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("use %s: %w", p, err)
		}
		name := p.context
		if name == "" {
			if raw, err := loader.RawConfig(); err == nil {
				name = raw.CurrentContext
			}
		}
		config.QPS, config.Burst = 50, 100
		out = append(out, cluster{name: name, config: config})
	}
	return out, nil
}

type pair struct{ kubeconfig, context string }

func (p pair) String() string {
	switch {
	case p.kubeconfig == "" && p.context == "":
		return "the current context"
	case p.context == "":
		return p.kubeconfig
	case p.kubeconfig == "":
		return "context " + p.context
	}
	return "context " + p.context + " of " + p.kubeconfig
}

// pairs matches kubeconfigs with contexts: a single one of either goes with all of the other.
func (f *clusterFlags) pairs() ([]pair, error) {
	k, c := f.kubeconfigs, f.contexts
	if len(k) == 0 {
		k = []string{""}
	}
	if len(c) == 0 {
		c = []string{""}
	}
	if len(k) > 1 && len(c) > 1 && len(k) != len(c) {
		return nil, fmt.Errorf("%d kubeconfigs and %d contexts: give one of either, or as many of both", len(k), len(c))
	}
	var out []pair
	for i := range max(len(k), len(c)) {
		out = append(out, pair{kubeconfig: k[min(i, len(k)-1)], context: c[min(i, len(c)-1)]})
	}
	return out, nil
}

// each runs do for every cluster at once and keeps the order.
func each[T any](clusters []cluster, do func(cluster) T) []T {
	out := make([]T, len(clusters))
	var wg sync.WaitGroup
	for i, c := range clusters {
		wg.Go(func() { out[i] = do(c) })
	}
	wg.Wait()
	return out
}

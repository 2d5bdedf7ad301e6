// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/fairlead-mesh/fairlead/hack/lab/netlab"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

// WaitHealthy waits until the node's kubelet and kube-proxy call themselves
// healthy.
func (n *Node) WaitHealthy(ctx context.Context, tools *toolchain.Cache) error {
	specs := n.Processes(tools)
	for _, check := range []struct {
		program int
		url     string
	}{{1, "http://127.0.0.1:10248/healthz"}, {2, "http://127.0.0.1:10256/livez"}} {
		err := specs[check.program].Wait(ctx, func(ctx context.Context) error { return n.get(ctx, check.url) })
		if err != nil {
			return fmt.Errorf("node %s: %w", n.node.Name, err)
		}
	}
	return nil
}

// get asks from inside the node.
func (n *Node) get(ctx context.Context, url string) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = netlab.In(n.instance.NetNS(n.node.Name), func() error {
				// Dialled on this very thread, as the address needs no lookup.
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return nil
}

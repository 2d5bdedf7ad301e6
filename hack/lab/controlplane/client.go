// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/fairlead-mesh/fairlead/hack/lab/pki"
)

// Client reads from the API server as administrator. It exists for the few
// polls of the lab; starting a kubectl for each would cost more than the rest.
type Client struct {
	base string
	http *http.Client
}

// Client connects from the root namespace.
func (cp *ControlPlane) Client() (*Client, error) {
	pair, err := tls.LoadX509KeyPair(cp.file("pki", "admin.crt"), cp.file("pki", "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("load administrator of %s: %w", cp.cluster.Name, err)
	}
	ca, err := os.ReadFile(cp.CA())
	if err != nil {
		return nil, fmt.Errorf("load authority of %s: %w", cp.cluster.Name, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}}
	return &Client{base: cp.cluster.UplinkAPIServer(), http: &http.Client{Transport: transport}}, nil
}

// Ready gives no error when the API server calls itself ready, and else the
// checks that fail.
func (c *Client) Ready(ctx context.Context) error {
	err := c.Get(ctx, "/readyz", nil)
	if err == nil {
		return nil
	}
	var failing []string
	for line := range strings.Lines(err.Error()) {
		if name, ok := strings.CutPrefix(line, "[-]"); ok {
			failing = append(failing, strings.Fields(name)[0])
		}
	}
	if len(failing) > 0 {
		return fmt.Errorf("the API server is not ready: %s", strings.Join(failing, ", "))
	}
	return err
}

// Get reads the object at path into out, unless out is nil.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s: %s", path, resp.Status, strings.TrimSpace(string(body)))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	return nil
}

// kubeconfig writes a kubeconfig with everything in it, so that the file can
// be copied elsewhere alone.
func (cp *ControlPlane) kubeconfig(file, name string, s pki.Subject, server string) error {
	certFile, keyFile, err := cp.ca.Issue(name, s)
	if err != nil {
		return err
	}
	var data [3][]byte
	for i, f := range []string{cp.CA(), certFile, keyFile} {
		if data[i], err = os.ReadFile(f); err != nil {
			return fmt.Errorf("write kubeconfig %s: %w", file, err)
		}
	}
	cluster := cp.cluster.Name
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": cluster,
		"clusters": []any{map[string]any{"name": cluster, "cluster": map[string]any{"server": server, "certificate-authority-data": data[0]}}},
		"users":    []any{map[string]any{"name": name, "user": map[string]any{"client-certificate-data": data[1], "client-key-data": data[2]}}},
		"contexts": []any{map[string]any{"name": cluster, "context": map[string]any{"cluster": cluster, "user": name}}},
	}
	raw, err := json.MarshalIndent(config, "", "  ") // JSON is YAML
	if err != nil {
		return fmt.Errorf("write kubeconfig %s: %w", file, err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

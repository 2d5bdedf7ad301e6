// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net"
	"sync"
)

// connections is a listener that can close one of its connections. That is the only way to end a gRPC stream to a client
// that takes nothing: the end of the stream would wait behind what was not taken.
type connections struct {
	net.Listener

	mu   sync.Mutex
	open map[string]*connection // by the other side's address
}

type connection struct {
	net.Conn
	of *connections
}

func newConnections(lis net.Listener) *connections {
	return &connections{Listener: lis, open: map[string]*connection{}}
}

// Accept implements net.Listener.
func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	known := &connection{conn, c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn.RemoteAddr().String()] = known
	return known, nil
}

// cut closes the connection from an address. What was sent and not taken is dropped with it.
func (c *connections) cut(address string) {
	c.mu.Lock()
	conn := c.open[address]
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // gRPC finds out, and says why the stream ended
	}
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	if address := c.RemoteAddr().String(); c.of.open[address] == c {
		delete(c.of.open, address)
	}
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// who is the answer of a server: which pod of which cluster it is.
type who struct {
	Pod     string `json:"pod"`
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Client  string `json:"client,omitempty"`
	Message string `json:"message,omitempty"`
}

func self() who {
	return who{Pod: os.Getenv("POD_NAME"), Cluster: os.Getenv("CLUSTER_NAME"), Node: os.Getenv("NODE_NAME")}
}

// serve answers HTTP on :8080 (any path tells who answered; POST /v1/request-landing lands a ship), echoes UDP on :8081
// and lines of TCP on :8082, until ctx ends.
func serve(ctx context.Context, _ []string) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { answer(w, r, "") })
	mux.HandleFunc("POST /v1/request-landing", func(w http.ResponseWriter, r *http.Request) { answer(w, r, "Ship landed") })
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })

	failed := make(chan error, 3)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { failed <- server.ListenAndServe() }()
	go func() { failed <- echoUDP(":8081") }()
	go func() { failed <- echoLines(":8082") }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		return server.Close()
	}
}

func answer(w http.ResponseWriter, r *http.Request, message string) {
	me := self()
	me.Client, me.Message = r.RemoteAddr, message
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(me); err != nil {
		fmt.Fprintln(os.Stderr, "sample: answer", r.RemoteAddr, err)
	}
}

func echoUDP(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return fmt.Errorf("listen on udp %s: %w", address, err)
	}
	defer conn.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, peer, err := conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("read udp: %w", err)
		}
		reply := fmt.Appendf(nil, "%s %s", os.Getenv("POD_NAME"), buffer[:n])
		if _, err := conn.WriteTo(reply, peer); err != nil {
			fmt.Fprintln(os.Stderr, "sample: echo to", peer, err)
		}
	}
}

// echoLines sends every line back, so that a client can tell lost from late.
func echoLines(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen on tcp %s: %w", address, err)
	}
	defer listener.Close()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			defer conn.Close()
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				if _, err := fmt.Fprintf(conn, "%s\n", lines.Text()); err != nil {
					return
				}
			}
		}()
	}
}

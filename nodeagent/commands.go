// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/flow"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni/masquerade"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
)

// observe prints flows, oldest first.
func observe(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("nodeagent observe", flag.ContinueOnError)
	socket := f.String("socket", report.DefaultSocket, "the agent's socket")
	output := f.String("o", "text", "text or json (one object a line)")
	follow := f.Bool("follow", false, "go on until interrupted")
	last := f.Int("last", 100, "how many of the past are shown first")
	verdict := f.String("verdict", "", "only ALLOWED, DENIED, DROPPED or AUDITED")
	attended := f.Bool("attended", false, "end when standard input does: a command run through the API server hears of its client's end in no other way")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *attended {
		var left context.CancelFunc
		ctx, left = context.WithCancel(ctx)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			left()
		}()
	}
	if *output != "text" && *output != "json" {
		return fmt.Errorf("-o %q: want text or json", *output)
	}
	query := url.Values{
		"last": {strconv.Itoa(*last)}, "follow": {strconv.FormatBool(*follow)}, "verdict": {strings.ToUpper(*verdict)},
	}
	body, err := ask(ctx, *socket, report.PathFlows+"?"+query.Encode())
	if err != nil {
		return err
	}
	defer body.Close()
	if *output == "json" {
		_, err = io.Copy(os.Stdout, body)
	} else {
		err = printFlows(body)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func printFlows(body io.Reader) error {
	in := json.NewDecoder(body)
	for {
		var seen flow.Flow
		err := in.Decode(&seen)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading what the agent tells: %w", err)
		}
		fmt.Fprintln(os.Stdout, seen.Time.Format("15:04:05.000"), seen)
	}
}

// ask gets something from the agent's socket.
func ask(ctx context.Context, socket, path string) (io.ReadCloser, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the agent at %s (does it run?): %w", socket, err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return nil, fmt.Errorf("the agent at %s says: %s", socket, strings.TrimSpace(string(text)))
	}
	return response.Body, nil
}

// status prints the agent's state.
func status(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("nodeagent status", flag.ContinueOnError)
	socket := f.String("socket", report.DefaultSocket, "the agent's socket")
	output := f.String("o", "text", "text or json")
	if err := f.Parse(args); err != nil {
		return err
	}
	body, err := ask(ctx, *socket, report.PathStatus)
	if err != nil {
		return err
	}
	defer body.Close()
	var s report.State
	if err := json.NewDecoder(body).Decode(&s); err != nil {
		return fmt.Errorf("reading what the agent tells: %w", err)
	}
	switch *output {
	case "json":
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(s)
	case "text":
		return s.Print(os.Stdout)
	}
	return fmt.Errorf("-o %q: want text or json", *output)
}

// cleanup takes everything that is ours off the node. Pods go on with their CNI alone.
func cleanup(_ context.Context, args []string) error {
	f := flag.NewFlagSet("nodeagent cleanup", flag.ContinueOnError)
	bpfDir := f.String("bpf-dir", datapath.DefaultDir, "where maps and programs are pinned")
	device := f.String("device", wireguard.DefaultDevice, "name of the WireGuard device")
	stateDir := f.String("state-dir", "/var/lib/fairlead", "what is kept on disk; it is removed with --forget")
	confDir := f.String("cni-conf-dir", cni.DefaultConfDir, "where the container runtime looks for configurations; the chained plugin is taken out of them")
	forget := f.Bool("forget", false, "also remove what is kept on disk: the snapshot and the WireGuard key")
	if err := f.Parse(args); err != nil {
		return err
	}
	table := &routes.Table{}
	errs := []error{
		cni.Unchain(cni.Config{ConfDir: *confDir}), // first: a chained plugin without programs lets no pod start
		datapath.Remove(*bpfDir),
		table.Clear(),
		masquerade.Remove(),
		wireguard.RemoveDevice(*device),
	}
	if *forget {
		errs = append(errs, os.Remove(filepath.Join(*stateDir, "snapshot")), os.RemoveAll(filepath.Join(*stateDir, "wireguard")))
	}
	return errors.Join(errs...)
}

func parseTunnel(args []string) (options, *slog.Logger, error) {
	var o options
	f := flag.NewFlagSet("nodeagent wireguard", flag.ContinueOnError)
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/fairlead", "where key and peers are kept")
	f.StringVar(&o.device, "device", wireguard.DefaultDevice, "name of the device")
	f.IntVar(&o.port, "port", wireguard.DefaultPort, "UDP port")
	f.BoolVar(&o.verbose, "v", false, "log details")
	err := f.Parse(args)
	return o, logger(o.verbose), err
}

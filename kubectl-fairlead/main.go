// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// kubectl-fairlead is the kubectl plugin: kubectl fairlead status, observe, policy, version. It only reads, with the rights of
// whoever runs it: status and version ask the Kubernetes API, observe runs the agents' own observe through it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
)

// version is set when released: -ldflags "-X main.version=v0.1.0".
var version = "dev"

// exitError ends the program with a code after everything has been said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The Kubernetes libraries log what they hand back as errors besides, such as connections that we close.
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard()) // else the client library complains after half a minute of waiting
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := &cobra.Command{
		Use:           "kubectl-fairlead",
		Short:         "See what the mesh does",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl fairlead"},
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(statusCommand(), observeCommand(), versionCommand(), policyCommand())
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitError
	switch {
	case err == nil:
		return evaluate.ExitHealthy
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "kubectl fairlead:", err)
	return evaluate.ExitUnusable
}

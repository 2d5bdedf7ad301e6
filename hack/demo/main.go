// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// demo tells Fairlead's story on two real Kubernetes clusters on this machine. See package story for the steps.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/fairlead-mesh/fairlead/hack/demo/story"
)

const instance = "demo"

const usage = `usage: demo up      bring the clusters up, install Fairlead, tell the story; leaves everything running
       demo story [STEP…]
                    tell the story again on the running clusters, or only the named steps of it
       demo down    remove every trace
`

func main() {
	if len(os.Args) < 2 || len(os.Args) > 2 && os.Args[1] != "story" {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	root, err := repository()
	if err != nil {
		fail(err)
	}
	world := story.NewWorld(root, instance, os.Stdout)
	switch os.Args[1] {
	case "up":
		err = world.Tell(ctx, append(append([]story.Step{}, story.Setup...), story.Story...))
	case "story":
		steps, unknown := story.Named(os.Args[2:])
		if unknown != "" {
			fmt.Fprintf(os.Stderr, "demo: there is no step %q\n%s", unknown, usage)
			os.Exit(2)
		}
		err = world.Tell(ctx, steps)
	case "down":
		if err = world.BuildLab(ctx); err == nil {
			err = world.Down(ctx)
		}
	default:
		fmt.Fprintf(os.Stderr, "demo: unknown command %q\n%s", os.Args[1], usage)
		os.Exit(2)
	}
	if err != nil {
		fail(err)
	}
	if os.Args[1] != "down" {
		world.TryNext(ctx)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
	os.Exit(1)
}

func repository() (string, error) {
	out, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return "", fmt.Errorf("find the repository: run the demo from a clone: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// generate remakes every generated file that is committed. CI runs it and fails if anything changed.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

type step struct {
	says string
	argv []string
}

var steps = []step{
	{"protobuf records and relay", []string{
		"protoc", "-I", ".",
		"--plugin=protoc-gen-go=" + toolPath("protoc-gen-go"),
		"--plugin=protoc-gen-go-grpc=" + toolPath("protoc-gen-go-grpc"),
		"--go_out=.", "--go_opt=paths=source_relative",
		"--go-grpc_out=.", "--go-grpc_opt=paths=source_relative",
		"mesh/record/v1/record.proto", "mesh/relay/v1/relay.proto",
	}},
	{"deep copies of the API types", []string{
		"go", "tool", "controller-gen", "object:headerFile=hack/generate/boilerplate.go.txt", "paths=./api/...",
	}},
	{"custom resource definitions", []string{
		"go", "tool", "controller-gen", "crd", "paths=./api/...", "output:crd:dir=config/crd",
	}},
	{"eBPF objects and their Go bindings", []string{"go", "generate", "./bpf/..."}},
}

func main() {
	for _, s := range steps {
		fmt.Println("generate:", s.says)
		cmd := exec.Command(s.argv[0], s.argv[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "generate: %s: %v\n", s.says, err)
			os.Exit(1)
		}
	}
}

// toolPath builds a Go tool of go.mod once and gives its path, because protoc wants executables and not `go tool` lines.
func toolPath(name string) string {
	out, err := exec.Command("go", "tool", "-n", name).Output()
	if err != nil {
		fmt.Fprintf(os.Stderr, "generate: locate %s: %v\n", name, err)
		os.Exit(1)
	}
	return filepath.Clean(string(out[:len(out)-1]))
}

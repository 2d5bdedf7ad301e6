// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// generate remakes every generated file that is committed. With -check it also fails, naming the files, if anything
// changed by that: then somebody changed a source and did not generate, or edited what is generated.
package main

import (
	"flag"
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
	{"eBPF objects and their Go bindings", []string{"go", "generate", "./bpf/...", "./test/bench/..."}},
}

func main() {
	check := flag.Bool("check", false, "fail if a generated file was not what its source makes")
	flag.Parse()
	before, err := snapshot()
	if err == nil {
		err = generate()
	}
	if err == nil && *check {
		err = before.compare()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate() error {
	for _, s := range steps {
		fmt.Println("generate:", s.says)
		cmd := exec.Command(s.argv[0], s.argv[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", s.says, err)
		}
	}
	return nil
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

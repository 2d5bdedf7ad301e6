// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "io"

func socketChild() bool { return false }
func runSocketChild() error { return nil }
func measureSockets(io.Writer, int, []int) error { return nil }

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Scale measures.
package main

func main() {}

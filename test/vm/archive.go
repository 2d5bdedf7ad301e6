// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
)

// archive is an initial RAM file system: a cpio archive in the format newc, as Documentation/driver-api/early-userspace of the
// kernel has it.
type archive struct {
	data bytes.Buffer
	node int
}

const (
	modeFolder = 0o040755
	modeFile   = 0o100755
)

func (a *archive) folder(name string)            { a.entry(name, modeFolder, nil) }
func (a *archive) file(name string, data []byte) { a.entry(name, modeFile, data) }

func (a *archive) entry(name string, mode int, data []byte) {
	a.node++
	fmt.Fprintf(&a.data, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.node, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.data.WriteString(name + "\x00")
	a.pad()
	a.data.Write(data)
	a.pad()
}

// pad fills up to a multiple of four bytes.
func (a *archive) pad() { a.data.Write(make([]byte, -a.data.Len()&3)) }

// finish returns the archive.
func (a *archive) finish() []byte {
	a.node = -1 // the trailer's is 0
	a.entry("TRAILER!!!", 0, nil)
	return a.data.Bytes()
}

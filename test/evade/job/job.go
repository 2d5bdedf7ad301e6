// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package job is what test/evade and the program in its pods tell each other.
package job

import "time"

// Job is one try to get around policy: a technique, and where to.
type Job struct {
	Token  string // what the try carries, by which the victims know it again
	How    string // the technique
	Detail string `json:",omitempty"` // which kind of it
	At     string // the target's name, for people

	To       string // address
	Port     uint16 `json:",omitempty"`
	FromPort uint16 `json:",omitempty"` // 0: any
	// Claim is the source address to write into packets, if not the own one.
	Claim string `json:",omitempty"`
	// Open is a port that policy opens for this peer: some techniques show it first.
	Open uint16 `json:",omitempty"`
	// Over is another address that the technique needs: a hop to be routed over, the inside of a tunnel, the peer in a quoted packet.
	Over string `json:",omitempty"`
	// MAC is the hardware address to send to: empty for the next hop's, "gateway", "broadcast", or an address.
	MAC string `json:",omitempty"`
	// Mine is the hardware address to send from, if not the own one.
	Mine string `json:",omitempty"`
	// For is how long to repeat it.
	For time.Duration `json:",omitempty"`
}

// Result is what the attacker saw of a job.
type Result struct {
	Token    string
	Answered string `json:",omitempty"` // who answered, if somebody did
	Refused  bool   `json:",omitempty"` // the kernel didn't let the pod do it
	Err      string `json:",omitempty"` // why it wasn't sent
}

// Sighting is a token that arrived.
type Sighting struct {
	Token string
	What  string // the packet, for people
	At    time.Time
}

// Self is what a pod knows of its network.
type Self struct {
	MAC      string
	Addrs    []string // global ones
	Gateways []string
	GateMAC  string
}

// Hold is what became of a connection that was to be kept, and of new ones beside it.
type Hold struct {
	Port       int // the own one
	Connected  bool
	Echoed     int
	LastEcho   time.Time
	LongestGap time.Duration
	Broken     string
	Fresh      int // new connections that were answered
	Failed     int // and that were not
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"sync"
	"testing"

	"github.com/cilium/ebpf"
)

// Both ends close while other packets of the flow are being judged anew, each time in an entry of its own: whichever
// comes first, both FINs are remembered.
func TestNoFINIsLostToAJudgement(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		send := func(prog *ebpf.Program, p []byte) {
			if _, err := prog.Run(&ebpf.RunOptions{Data: p, DataOut: make([]byte, 256), Context: skb{Ifindex: podIfindex}}); err != nil {
				t.Error(err)
			}
		}
		for sport := uint16(4000); sport < 4400 && !t.Failed(); sport++ {
			out := func(flags string) []byte { return tcp(c.pod, sport, c.friend, 80, flags).bytes(t) }
			in := func(flags string) []byte { return tcp(c.friend, 80, c.pod, sport, flags).bytes(t) }
			finOut, finIn, data := out("FA"), in("FA"), out("A")
			send(f.progs.PodEgress, out("S"))
			send(f.progs.PodIngress, in("SA"))

			var wg sync.WaitGroup
			start := make(chan struct{})
			wg.Go(func() {
				<-start
				for range 4 {
					f.cfg.PolicyEpoch++
					f.cfg.FullEpoch = f.cfg.PolicyEpoch
					if err := f.maps.Config.Put(uint32(0), &f.cfg); err != nil {
						t.Error(err)
					}
					send(f.progs.PodEgress, data)
				}
			})
			wg.Go(func() {
				<-start
				send(f.progs.PodEgress, finOut)
				send(f.progs.PodIngress, finIn)
			})
			close(start)
			wg.Wait()
			e, ok := f.flow(ctKey{c, c.friend, sport, 80, 6})
			if want := uint32(CTFinPod | CTFinPeer | CTReplied); !ok || e.Flags&want != want || e.Flags&CTReplacing != 0 {
				t.Errorf("flow %d = %+v, %v, want both FINs and the reply remembered", sport, e, ok)
			}
		}
	})
}

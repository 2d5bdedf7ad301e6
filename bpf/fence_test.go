// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
)

// A fence comes to an end while packets run without a pause. That it waits is what TestSwapUnderAFlood shows.
func TestFenceEndsUnderLoad(t *testing.T) {
	f, c := newFixture(t), cast4
	data := tcp(c.pod, 4000, c.friend, 80, "A").bytes(t)
	var flood sync.WaitGroup
	var stop atomic.Bool
	flood.Go(func() {
		for !stop.Load() {
			if _, err := f.progs.PodEgress.Run(&ebpf.RunOptions{Data: data, Context: skb{Ifindex: podIfindex}, Repeat: 1000}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 5 {
		f.must(f.maps.Fence())
	}
	stop.Store(true)
	flood.Wait()
}

func TestFenceWorksOnPinnedMaps(t *testing.T) {
	dir := bpffs(t)
	first, _ := openMaps(t, dir, nil)
	if err := first.PinMaps(dir); err != nil {
		t.Fatal(err)
	}
	second, replaced := openMaps(t, dir, nil)
	if len(replaced) != 0 {
		t.Errorf("replaced %v", replaced)
	}
	if err := second.Fence(); err != nil {
		t.Error(err)
	}
}

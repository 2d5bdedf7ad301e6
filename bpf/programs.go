// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/cilium/ebpf"
)

// Programs holds a handle for every program.
type Programs struct {
	PodEgress     *ebpf.Program `ebpf:"fl_pod_egress"`
	PodIngress    *ebpf.Program `ebpf:"fl_pod_ingress"`
	TunnelIngress *ebpf.Program `ebpf:"fl_tunnel_ingress"`
	UplinkEgress  *ebpf.Program `ebpf:"fl_uplink_egress"`

	Connect4     *ebpf.Program `ebpf:"fl_connect4"`
	Connect6     *ebpf.Program `ebpf:"fl_connect6"`
	Sendmsg4     *ebpf.Program `ebpf:"fl_sendmsg4"`
	Sendmsg6     *ebpf.Program `ebpf:"fl_sendmsg6"`
	Recvmsg4     *ebpf.Program `ebpf:"fl_recvmsg4"`
	Recvmsg6     *ebpf.Program `ebpf:"fl_recvmsg6"`
	Getpeername4 *ebpf.Program `ebpf:"fl_getpeername4"`
	Getpeername6 *ebpf.Program `ebpf:"fl_getpeername6"`
}

// objects are the embedded objects that hold programs.
var objects = []struct {
	name string
	load func() (*ebpf.CollectionSpec, error)
}{
	{"pod_egress", loadPodEgress},
	{"pod_ingress", loadPodIngress},
	{"tunnel_ingress", loadTunnelIngress},
	{"uplink_egress", loadUplinkEgress},
	{"socket_lb", loadSocketLB},
}

// LoadPrograms verifies and loads every program against the given maps. The
// error of a refused program holds the verifier's log (%+v).
func LoadPrograms(m *Maps) (*Programs, error) {
	loaded := map[string]*ebpf.Program{}
	closeAll := func() {
		for _, p := range loaded {
			p.Close()
		}
	}
	has, err := kernelAbilities()
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if err := loadObject(o.load, m, has, loaded); err != nil {
			closeAll()
			return nil, fmt.Errorf("loading object %s: %w", o.name, err)
		}
	}
	p := &Programs{}
	for name, field := range p.fields() {
		prog, ok := loaded[name]
		if !ok {
			closeAll()
			return nil, fmt.Errorf("no embedded object holds program %s", name)
		}
		field.Set(reflect.ValueOf(prog))
	}
	return p, nil
}

func loadObject(load func() (*ebpf.CollectionSpec, error), m *Maps, has abilities, into map[string]*ebpf.Program) error {
	spec, err := load()
	if err != nil {
		return err
	}
	if err := has.enable(spec); err != nil {
		return err
	}
	shared := map[string]*ebpf.Map{}
	all := m.ByName()
	for name, ms := range spec.Maps {
		h, ok := all[name]
		if !ok {
			if strings.HasPrefix(name, ".") {
				continue // constants of the object's own
			}
			return fmt.Errorf("object has map %s of its own", name)
		}
		ms.MaxEntries = h.MaxEntries() // may have been chosen, see OpenMaps
		shared[name] = h
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return err
	}
	defer coll.Close()
	for name := range spec.Programs {
		into[name] = coll.DetachProgram(name)
	}
	return nil
}

// Close releases the handles. Pinned or attached programs live on.
func (p *Programs) Close() {
	for _, field := range p.fields() {
		if h, _ := field.Interface().(*ebpf.Program); h != nil {
			h.Close()
		}
	}
}

func (p *Programs) fields() func(yield func(string, reflect.Value) bool) {
	return taggedFields(reflect.ValueOf(p).Elem())
}

// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func TestFlags(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "elsewhere")
	o, err := parseFlags(nil)
	if err != nil || o.namespace != "elsewhere" || o.relayAddress != ":4240" || o.metricsAddress != ":9640" || o.healthAddress != ":9641" || !o.leaderElect {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	o, err = parseFlags([]string{"--namespace=a", "--leader-elect=false", "--metrics-address", "127.0.0.1:1", "--log-level=debug"})
	if err != nil || o.namespace != "a" || o.leaderElect || o.metricsAddress != "127.0.0.1:1" || o.logLevel >= 0 {
		t.Errorf("given: %+v, %v", o, err)
	}
	for _, bad := range [][]string{{"--no-such-flag"}, {"stray"}, {"--log-level=loud"}, {"--leader-elect=maybe"}} {
		if _, err := parseFlags(bad); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("parseFlags(%v) = %v", bad, err)
		}
	}
}

// right is one thing that the code says it does.
type right struct {
	file, group, resource, verb string
	ownNamespace                bool
}

// TestTheManifestGrantsWhatTheCodeNeeds compares the rights named beside the code with those that are installed, so that
// neither is forgotten when the other changes.
func TestTheManifestGrantsWhatTheCodeNeeds(t *testing.T) {
	everywhere, own := grantedRules(t, "../config/rbac/operator.yaml")
	needed := markedRights(t, ".")
	if len(needed) < 50 {
		t.Fatalf("only %d rights found beside the code", len(needed))
	}
	for _, r := range needed {
		rules := everywhere
		if r.ownNamespace {
			rules = slices.Concat(everywhere, own)
		}
		if !slices.ContainsFunc(rules, func(p rbacv1.PolicyRule) bool { return grants(p, r) }) {
			t.Errorf("%s needs %s on %q of group %q, which config/rbac/operator.yaml doesn't grant", r.file, r.verb, r.resource, r.group)
		}
	}
}

func grants(p rbacv1.PolicyRule, r right) bool {
	has := func(list []string, want string) bool {
		return slices.Contains(list, want) || slices.Contains(list, "*")
	}
	return has(p.APIGroups, r.group) && has(p.Resources, r.resource) && has(p.Verbs, r.verb)
}

func grantedRules(t *testing.T, file string) (everywhere, own []rbacv1.PolicyRule) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		var role rbacv1.ClusterRole
		err := d.Decode(&role)
		if errors.Is(err, io.EOF) {
			return everywhere, own
		}
		if err != nil {
			t.Fatal(err)
		}
		switch role.Kind {
		case "ClusterRole":
			everywhere = append(everywhere, role.Rules...)
		case "Role":
			own = append(own, role.Rules...)
		}
	}
}

func markedRights(t *testing.T, dir string) []right {
	t.Helper()
	var rights []right
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(data)) {
			if _, marker, ok := strings.Cut(strings.TrimSpace(line), "+kubebuilder:rbac:"); ok {
				rights = append(rights, parseMarker(p, marker)...)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rights
}

func parseMarker(file, marker string) []right {
	fields := map[string][]string{}
	for f := range strings.SplitSeq(marker, ",") {
		k, v, _ := strings.Cut(f, "=")
		fields[k] = strings.Split(strings.Trim(v, "\""), ";")
	}
	var rights []right
	for _, group := range fields["groups"] {
		for _, resource := range fields["resources"] {
			for _, verb := range fields["verbs"] {
				rights = append(rights, right{file, group, resource, verb, fields["namespace"] != nil})
			}
		}
	}
	return rights
}

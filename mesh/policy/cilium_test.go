// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// read shows what a policy of Cilium's becomes: its subjects, its rules, and what its author is told.
func read(m *Model) string {
	var out []string
	for _, one := range m.all() {
		if one.nobody {
			out = append(out, "nobody")
		} else {
			out = append(out, "about "+one.subjects.String())
		}
		for dir, d := range one.dirs {
			if d == nil {
				continue
			}
			if d.isolates {
				out = append(out, Direction(dir).String()+" isolates")
			}
			for _, r := range d.rules {
				out = append(out, fmt.Sprintf("%s %s [%d]", Direction(dir), r.text, r.index))
			}
		}
	}
	for _, p := range m.Problems() {
		level := "problem: "
		if p.Warning {
			level = "warning: "
		}
		out = append(out, level+p.Message)
	}
	return strings.Join(out, "\n")
}

// Each field of a rule, and what is made of it.
func TestRulesOfCiliumPolicies(t *testing.T) {
	const all = "about all pods in namespace shop\n"
	in := func(rules string) string { return all + "ingress isolates\ningress " + rules }
	out := func(rules string) string { return all + "egress isolates\negress " + rules }
	closed := "\nwarning: spec.ingress[0]"
	for _, tt := range []struct{ name, rules, want string }{
		{"no rules", `"ingress":[]`, strings.TrimSpace(all)},
		{"an empty rule", `"ingress":[{}]`, in("allow from nowhere [0]")},
		{"an empty deny", `"ingressDeny":[{}]`, in("deny from nowhere [0]")},
		{"ports alone", `"ingress":[{"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]`, in("allow from anywhere on TCP/80 [0]")},
		{"no default deny", `"ingress":[{"fromEntities":["all"]}],"enableDefaultDeny":{"ingress":false}`, all + "ingress allow from anywhere [0]"},
		{"default deny without rules", `"enableDefaultDeny":{"egress":true,"ingress":false}`, all + "egress isolates"},
		{"what decides nothing", `"description":"a","labels":[{"key":"a"}],"log":{"value":"x"},"ingress":[{"fromEntities":["all"],"authentication":{"mode":"disabled"}}]`, in("allow from anywhere [0]")},

		{"all of the namespace", `"ingress":[{"fromEndpoints":[{}]}]`, in("allow from all pods in namespace shop [0]")},
		{"nobody", `"ingress":[{"fromEndpoints":[],"toPorts":[{"ports":[{"port":"80"}]}]}]`, in("allow from nowhere on TCP/80, UDP/80, SCTP/80 [0]")},
		{"no list", `"ingress":[{"fromEndpoints":null,"toPorts":[{"ports":[{"port":"80","protocol":"UDP"}]}]}]`, in("allow from anywhere on UDP/80 [0]")},
		{"labels with and without a prefix", `"ingress":[{"fromEndpoints":[{"matchLabels":{"app":"a","k8s:b":"c","any:d":"e"}}]}]`, in("allow from pods app in (a),b in (c),d in (e) in namespace shop [0]")},
		{"another namespace", `"ingress":[{"fromEndpoints":[{"matchLabels":{"k8s:io.kubernetes.pod.namespace":"else","app":"a"}}]}]`, in("allow from pods app in (a) in namespace else [0]")},
		{"some namespaces", `"ingress":[{"fromEndpoints":[{"matchExpressions":[{"key":"io.kubernetes.pod.namespace","operator":"NotIn","values":["else"]}]}]}]`, in("allow from all pods in namespaces kubernetes.io/metadata.name notin (else) [0]")},
		{"namespaces by label", `"ingress":[{"fromEndpoints":[{"matchLabels":{"k8s:io.cilium.k8s.namespace.labels.team":"red","io.cilium.k8s.namespace.labels.a.example/b":"c"}}]}]`, in("allow from all pods in namespaces a.example/b in (c),team in (red) [0]")},
		{"another cluster", `"egress":[{"toEndpoints":[{"matchLabels":{"io.cilium.k8s.policy.cluster":"west"}}]}]`, out("allow to pods fairlead.dev/cluster in (west) in namespace shop of all clusters [0]")},
		{"a service account", `"egress":[{"toEndpoints":[{"matchLabels":{"io.cilium.k8s.policy.serviceaccount":"robot"}}]}]`, out("allow to pods fairlead.dev/service-account in (robot) in namespace shop [0]")},
		{"a reserved label", `"egress":[{"toEndpoints":[{"matchLabels":{"reserved:host":""}}]}]`, out("allow to the pod's own node [0]")},
		{"another source", `"ingress":[{"fromEndpoints":[{"matchLabels":{"container:a":"b"}}]}]`, in("allow from nowhere [0]" + closed + `.fromEndpoints: element 0: container:a: pods have no labels of source "container" here; it allows nobody`)},
		{"a reserved label and another", `"ingressDeny":[{"fromEndpoints":[{"matchLabels":{"reserved:host":"","app":"a"}}]}]`, in("deny from anywhere [0]\nwarning: spec.ingressDeny[0].fromEndpoints: element 0: reserved labels can't be combined with others; it denies everybody who may be meant")},
		{"a selector that isn't one", `"ingress":[{"fromEndpoints":[{"matchExpressions":[{"key":"a","operator":"Gt"}]}]}]`, in("allow from nowhere [0]" + closed + `.fromEndpoints: element 0: "Gt" is not a valid label selector operator; it allows nobody`)},

		{"entities", `"ingress":[{"fromEntities":["world","cluster","host","remote-node","none"]}]`, in("allow from the world or all pods in all namespaces or nodes of the mesh or the pod's own node or other nodes of the mesh [0]")},
		{"the API server", `"egress":[{"toEntities":["kube-apiserver"]}]`, out("allow to nowhere [0]\nwarning: spec.egress[0].toEntities: kube-apiserver: is not enforced yet; it allows nobody")},
		{"the API server, denied", `"egressDeny":[{"toEntities":["kube-apiserver"]}]`, out("deny to the world or nodes of the mesh [0]\nwarning: spec.egressDeny[0].toEntities: kube-apiserver: is not enforced yet; it denies everybody who may be meant")},
		{"endpoints that don't exist", `"ingress":[{"fromEntities":["health","ingress"]}]`, in("allow from nowhere [0]" + closed + ".fromEntities: health: there is no such endpoint here; it means nobody" + closed + ".fromEntities: ingress: there is no such endpoint here; it means nobody")},
		{"endpoints that nobody knows", `"ingress":[{"fromEntities":["unmanaged"]}],"ingressDeny":[{"fromEntities":["init"]}]`, in("deny from 0.0.0.0/32 [0]\ningress allow from nowhere [0]\nwarning: spec.ingressDeny[0].fromEntities: init: means nobody who is known" + closed + ".fromEntities: unmanaged: means nobody who is known")},
		{"the host, denied", `"ingressDeny":[{"fromEntities":["host"]}]`, in("deny from the pod's own node [0]\nwarning: spec.ingressDeny[0].fromEntities: host: a node always reaches its own pods; it is not denied")},
		{"no entity", `"ingress":[{"fromEntities":["moon"]}]`, in("allow from nowhere [0]" + closed + `.fromEntities: "moon" is not known; it allows nobody`)},

		{"ranges", `"egress":[{"toCIDR":["192.0.2.0/24","198.51.100.7","2001:db8::1"]}]`, out("allow to 192.0.2.0/24 or 198.51.100.7/32 or 2001:db8::1/128 outside of the mesh [0]")},
		{"ranges without a part", `"egress":[{"toCIDRSet":[{"cidr":"10.0.0.0/8","except":["10.96.0.0/12"]},{"cidr":"192.0.2.0/24","except":["192.0.0.0/16"]}]}]`, out("allow to 10.0.0.0/8 except 10.96.0.0/12 outside of the mesh [0]")},
		{"a range that is none", `"egress":[{"toCIDR":["10.0.0"]}]`, out(`allow to nowhere [0]` + "\nwarning: spec.egress[0].toCIDR: element 0: \"10.0.0\" is not a CIDR such as 192.0.2.0/24; it allows nobody")},
		{"a part that is none", `"egressDeny":[{"toCIDRSet":[{"cidr":"10.0.0.0/8","except":["11.0.0.0/8"]}]}]`, out("deny to anywhere [0]\nwarning: spec.egressDeny[0].toCIDRSet: element 0: except[0]: 11.0.0.0/8 is not a part of 10.0.0.0/8; it denies everybody who may be meant")},
		{"a group of ranges", `"egress":[{"toCIDRSet":[{"cidrGroupRef":"a"}]}]`, out("allow to nowhere [0]\nwarning: spec.egress[0].toCIDRSet: element 0: groups of CIDRs are not read yet; it allows nobody")},

		{"services", `"egress":[{"toServices":[{"k8sService":{"serviceName":"a","namespace":"shop"}},{"k8sService":{"serviceName":"kubernetes","namespace":"default"}}],"toPorts":[{"ports":[{"port":"443","protocol":"TCP"}]}]}]`,
			out("allow to service shop/a or service default/kubernetes on TCP/443 [0]")},
		{"a service without namespace", `"egress":[{"toServices":[{"k8sService":{"serviceName":"a"}}]}]`, out("allow to nowhere [0]\nwarning: spec.egress[0].toServices: element 0: k8sService: needs serviceName and namespace; it allows nobody")},
		{"services by labels", `"egress":[{"toServices":[{"k8sServiceSelector":{"selector":{"matchLabels":{"a":"b"}},"namespace":"shop"}}]}]`,
			out("allow to nowhere [0]\nwarning: spec.egress[0].toServices: element 0: k8sServiceSelector is not enforced yet; it allows nobody")},
		{"names", `"egress":[{"toFQDNs":[{"matchName":"a.example"}],"toPorts":[{"ports":[{"port":"443","protocol":"TCP"}]}]}]`, out("allow to nowhere on TCP/443 [0]\nwarning: spec.egress[0].toFQDNs: is not enforced yet; it allows nobody")},
		{"groups, denied on a port", `"egressDeny":[{"toGroups":[{"aws":{}}],"toPorts":[{"ports":[{"port":"443","protocol":"TCP"}]}]}]`, out("deny to anywhere on TCP/443 [0]\nwarning: spec.egressDeny[0].toGroups: is not enforced yet; it denies everybody who may be meant")},
		{"nodes", `"ingress":[{"fromNodes":[{"matchLabels":{"a":"b"}}]}]`, in("allow from nowhere [0]" + closed + ".fromNodes: is not enforced yet; it allows nobody")},
		{"no nodes", `"ingress":[{"fromNodes":[]}]`, in("allow from nowhere [0]")},
		{"requirements", `"ingress":[{"fromRequires":[{"matchLabels":{"a":"b"}}]}]`, in("deny from anywhere [0]" + closed + ".fromRequires: is not enforced, and limits what others allow; it denies everybody who may be meant")},
		{"authentication", `"ingress":[{"fromEndpoints":[{}],"authentication":{"mode":"required"}}]`, in("allow from nowhere [0]" + closed + ".authentication: is not enforced; it allows nobody")},
		{"two kinds of peers", `"ingress":[{"fromEndpoints":[{}],"fromEntities":["world"]}]`, in("allow from nowhere [0]" + closed + ": fromEndpoints and fromEntities can't be in one rule; it allows nobody")},
		{"peers of the other direction", `"ingress":[{"toEndpoints":[{}]}]`, in("allow from nowhere [0]" + closed + ": toEndpoints is not for ingress; it allows nobody")},
		{"a field of a later version", `"ingress":[{"fromMoon":[{}]}],"ingressDeny":[{"fromMoon":[{}]}]`, in("deny from anywhere [0]\ningress allow from nowhere [0]\nwarning: spec.ingressDeny[0]: unknown field \"fromMoon\"; it denies everybody who may be meant" + closed + ": unknown field \"fromMoon\"; it allows nobody")},
		{"no rule at all", `"ingress":[7]`, in("allow from nowhere [0]" + closed + ": json: cannot unmarshal number into Go value of type policy.ciliumRule; it allows nobody")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := read(policyOf(KindCiliumNetworkPolicy, "shop", "p", `{"spec":{"endpointSelector":{},`+tt.rules+`}}`))
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestPortsOfCiliumPolicies(t *testing.T) {
	for _, tt := range []struct{ ports, allow, deny, warning string }{
		{`{"ports":[{"port":"80","protocol":"TCP"},{"port":"53","protocol":"udp"}]}`, "on TCP/80, UDP/53", "", ""},
		{`{"ports":[{"port":"80","endPort":90,"protocol":"TCP"}]}`, "on TCP/80-90", "", ""},
		{`{"ports":[{"port":"0","protocol":"SCTP"}]}`, "on SCTP", "", ""},
		{`{"ports":[{"port":"0","protocol":"ANY"}]}`, "on TCP, UDP, SCTP", "", ""},
		{`{"ports":[{"port":"HTTP","endPort":5,"protocol":"TCP"}]}`, "on TCP/http", "", ""},
		{`{"ports":[{"port":"http"}]}`, "on TCP/http, UDP/http, SCTP/http", "", ""},
		{`{"ports":[{"port":"80","protocol":"TCP"}],"rules":{}}`, "on TCP/80", "", ""},
		{`{"ports":[{"port":"53","protocol":"UDP"}],"rules":{"dns":[{"matchPattern":"*"}]}}`, "on UDP/53", "", "rules.dns: any name may be asked for"},
		{`{"ports":[{"port":"53","protocol":"UDP"}],"rules":{"dns":[{"matchPattern":"*.a.example"}]}}`, "on no port", "on UDP/53", ".rules: is not enforced yet"},
		{`{"ports":[{"port":"80","protocol":"TCP"}],"rules":{"http":[{}]}}`, "on no port", "on TCP/80", ".rules: is not enforced yet"},
		{`{"ports":[{"port":"80","protocol":"TCP"}],"terminatingTLS":{}}`, "on no port", "on TCP/80", ".terminatingTLS: is not enforced yet"},
		{`{"ports":[{"port":"80","protocol":"TCP"}],"originatingTLS":{}}`, "on no port", "on TCP/80", ".originatingTLS: is not enforced yet"},
		{`{"ports":[{"port":"80","protocol":"TCP"}],"serverNames":["a"]}`, "on no port", "on TCP/80", ".serverNames: is not enforced yet"},
		{`{"ports":[{"port":"80","protocol":"TCP"}],"listener":{}}`, "on no port", "on TCP/80", ".listener: is not enforced yet"},
		{`{}`, "", "", "has no ports"},
		{`{"ports":[{"protocol":"TCP"}]}`, "", "", "port is missing"},
		{`{"ports":[{"port":"080","protocol":"TCP"}]}`, "", "", "neither a number"},
		{`{"ports":[{"port":"70000","protocol":"TCP"}]}`, "", "", "not between 1 and 65535"},
		{`{"ports":[{"port":"99999999999","protocol":"TCP"}]}`, "", "", "not between 1 and 65535"},
		{`{"ports":[{"port":"80","endPort":70,"protocol":"TCP"}]}`, "", "", "endPort 70"},
		{`{"ports":[{"port":"0","endPort":70,"protocol":"TCP"}]}`, "", "", "neither a number"},
		{`{"ports":[{"port":"80","protocol":"IGMP"}]}`, "", "", "none of TCP, UDP, SCTP and ANY"},
		{`{"ports":[{"port":80}]}`, "", "", "cannot unmarshal"},
	} {
		for kind, list := range map[RuleKind]string{RuleAllow: "ingress", RuleDeny: "ingressDeny"} {
			want := "ingress allow from the world"
			if kind == RuleDeny {
				want = "ingress deny from the world"
			}
			switch {
			case tt.allow == "" && kind == RuleAllow:
				want = "ingress allow from nowhere [0]"
			case tt.allow == "":
				want = "ingress deny from anywhere [0]"
			case kind == RuleDeny && tt.deny != "":
				want += " " + tt.deny + " [0]"
			default:
				want += " " + tt.allow + " [0]"
			}
			got := read(policyOf(KindCiliumNetworkPolicy, "shop", "p", `{"spec":{"endpointSelector":{},"`+list+`":[{"fromEntities":["world"],"toPorts":[`+tt.ports+`]}]}}`))
			if !strings.Contains(got+"\n", want+"\n") || !strings.Contains(got, tt.warning) || tt.warning == "" && strings.Contains(got, "warning") {
				t.Errorf("%s %s: got\n%s\nwant %q and %q", list, tt.ports, got, want, tt.warning)
			}
		}
	}
}

// Types of ICMP: those that can't be named are allowed to nobody, and a deny of them is about all of the family.
func TestICMPOfCiliumPolicies(t *testing.T) {
	for _, tt := range []struct{ fields, allow, deny, warning string }{
		{`{"type":8},{"type":"EchoRequest","family":"IPv6"}`, "ICMP/EchoRequest, ICMPv6/EchoRequest", "ICMP/EchoRequest, ICMPv6/EchoRequest", ""},
		{`{"type":"DestinationUnreachable"}`, "no port", "ICMP", "error message"},
		{`{"type":8},{"type":"Nonsense","family":"IPv6"}`, "ICMP/EchoRequest", "ICMP/EchoRequest, ICMPv6", "no name of a type"},
		{`{"type":8,"family":"IPv5"}`, "no port", "ICMP, ICMPv6", "neither IPv4 nor IPv6"},
		{`{"family":"IPv4"}`, "no port", "ICMP", "has no type"},
	} {
		for list, want := range map[string]string{"ingress": "allow from the world on " + tt.allow, "ingressDeny": "deny from the world on " + tt.deny} {
			got := read(policyOf(KindCiliumNetworkPolicy, "shop", "p",
				`{"spec":{"endpointSelector":{},"`+list+`":[{"fromEntities":["world"],"icmps":[{"fields":[`+tt.fields+`]}]}]}}`))
			if !strings.Contains(got+"\n", want+" [0]\n") || !strings.Contains(got, tt.warning) || tt.warning == "" && strings.Contains(got, "warning") {
				t.Errorf("%s %s: got\n%s\nwant %q and %q", list, tt.fields, got, want, tt.warning)
			}
		}
	}
}

// Whom policies are about, and what becomes of specs that can't be read.
func TestSpecsOfCiliumPolicies(t *testing.T) {
	const n, c = KindCiliumNetworkPolicy, KindCiliumClusterwideNetworkPolicy
	for _, tt := range []struct{ name, kind, text, want string }{
		{"a namespace's", n, `{"spec":{"endpointSelector":{"matchLabels":{"app":"web"}},"ingress":[{}]}}`, "about pods app in (web) in namespace shop\ningress isolates\ningress allow from nowhere [0]"},
		{"the cluster's", c, `{"spec":{"endpointSelector":{},"ingress":[{"fromEndpoints":[{}]}]}}`, "about all pods in all namespaces\ningress isolates\ningress allow from all pods in all namespaces [0]"},
		{"of one namespace", c, `{"spec":{"endpointSelector":{"matchLabels":{"io.kubernetes.pod.namespace":"shop"}},"egress":[{}]}}`, "about all pods in namespace shop\negress isolates\negress allow to nowhere [0]"},
		{"its own namespace named", n, `{"spec":{"endpointSelector":{"matchLabels":{"k8s:io.kubernetes.pod.namespace":"shop"}}}}`, "about all pods in namespace shop"},
		{"another one named", n, `{"spec":{"endpointSelector":{"matchLabels":{"k8s:io.kubernetes.pod.namespace":"else"}}}}`, "about all pods in namespace shop\nwarning: spec.endpointSelector: k8s:io.kubernetes.pod.namespace: the policy is about pods of its own namespace shop only; the label is not asked for"},
		{"another one required", n, `{"spec":{"endpointSelector":{"matchLabels":{"io.kubernetes.pod.namespace":"else"}}}}`, "nobody\nproblem: spec.endpointSelector: selects pods of namespace else, and a CiliumNetworkPolicy is about those of its own only"},
		{"several", n, `{"spec":{"endpointSelector":{},"egress":[{}]},"specs":[{"endpointSelector":{"matchLabels":{"app":"db"}},"ingress":[{}]}]}`, "about all pods in namespace shop\negress isolates\negress allow to nowhere [0]\nabout pods app in (db) in namespace shop\ningress isolates\ningress allow from nowhere [0]"},
		{"one of several unreadable", n, `{"specs":[{"endpointSelector":7},{"endpointSelector":{},"ingress":[{}]}]}`, "nobody\nabout all pods in namespace shop\ningress isolates\ningress allow from nowhere [0]\nproblem: specs[0] is not readable: json: cannot unmarshal number into Go struct field ciliumSpec.endpointSelector of type v1.LabelSelector"},
		{"of hosts", c, `{"spec":{"nodeSelector":{},"ingress":[{}]}}`, "nobody\nproblem: spec.nodeSelector: policies of hosts are not enforced; nodes are no subjects"},
		{"of reserved endpoints", c, `{"spec":{"endpointSelector":{"matchLabels":{"reserved:health":""}},"ingress":[{}]}}`, "nobody\nproblem: spec.endpointSelector: selects no pods: endpoints of reserved identities are none here"},
		{"without a selector", n, `{"spec":{"ingress":[{}]}}`, "nobody\nproblem: spec.endpointSelector: is missing"},
		{"without a spec", n, `{}`, "nobody\nproblem: spec: is missing, and specs, too"},
		{"a field of a later version", n, `{"spec":{"endpointSelector":{},"mode":"x","egress":[{"toEntities":["all"]}]}}`, "about all pods in namespace shop\negress isolates\nproblem: spec: unknown field \"mode\""},
		{"rules of another type", n, `{"spec":{"endpointSelector":{"matchLabels":{"app":"web"}},"egress":{}}}`, "about pods app in (web) in namespace shop\negress isolates\nproblem: spec is not readable: json: cannot unmarshal object into Go struct field ciliumSpec.egress of type []json.RawMessage"},
		{"a label that identities leave out", n, `{"spec":{"endpointSelector":{"matchLabels":{"controller-uid":"1"}},"ingress":[{"fromEntities":["all"]}],"ingressDeny":[{"fromEntities":["world"]}]}}`,
			"about all pods in namespace shop\ningress isolates\ningress deny from the world [0]\nwarning: spec.endpointSelector: label controller-uid is not part of a pod's identity, because it differs for each Job, which would give each its own identity; the policy selects every pod that may be meant, and its allow rules apply to none of them"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			namespace := "shop"
			if tt.kind == c {
				namespace = ""
			}
			if got := read(policyOf(tt.kind, namespace, "p", tt.text)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What a policy of Cilium's says of the subject's own node, and of addresses.
func TestCiliumPoliciesJudgeTheOwnNode(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.7")
	open := policyOf(KindNetworkPolicy, "shop", "open", `{"podSelector":{},"policyTypes":["Egress"],"egress":[{}]}`)
	closed := policyOf(KindNetworkPolicy, "shop", "a", `{"podSelector":{},"policyTypes":["Egress"]}`)
	for _, tt := range []struct {
		name, egress                string
		also                        *Model
		toHost, toNode, toPod, toIP Verdict
	}{
		{"isolation is about it", `"egress":[{}]`, nil, Deny, Deny, Deny, Deny},
		{"beside a policy that spares it", `"egress":[{}]`, closed, Deny, Deny, Deny, Deny},
		{"the host", `"egress":[{"toEntities":["host"]}]`, nil, Allow, Deny, Deny, Deny},
		{"other nodes", `"egress":[{"toEntities":["remote-node"]}]`, nil, Deny, Allow, Deny, Deny},
		{"the cluster", `"egress":[{"toEntities":["cluster"]}]`, nil, Allow, Allow, Allow, Deny},
		{"all", `"egress":[{"toEntities":["all"]}]`, nil, Allow, Allow, Allow, Allow},
		{"what another policy allows", `"egress":[{}]`, open, Allow, Allow, Allow, Allow},
		{"a port is denied to everybody", `"egressDeny":[{"toPorts":[{"ports":[{"port":"80","protocol":"TCP"}]}]}]`, open, Deny, Deny, Deny, Deny},
		{"other nodes are denied", `"egressDeny":[{"toEntities":["remote-node"]}]`, open, Allow, Deny, Allow, Allow},
		{"no default deny", `"egress":[{"toEntities":["none"]}],"enableDefaultDeny":{"egress":false}`, nil, Allow, Allow, Allow, Allow},
		{"a range is what is outside", `"egress":[{"toCIDR":["192.0.2.0/24"]}]`, nil, Deny, Deny, Deny, Allow},
		{"a range is denied outside", `"egressDeny":[{"toCIDR":["0.0.0.0/0"]}]`, open, Allow, Allow, Allow, Deny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			policies := []*Model{policyOf(KindCiliumNetworkPolicy, "shop", "p", `{"spec":{"endpointSelector":{},`+tt.egress+`}}`)}
			if tt.also != nil {
				policies = append(policies, tt.also)
			}
			for _, to := range []struct {
				peer uint32
				want Verdict
			}{{identity.Host, tt.toHost}, {identity.RemoteNode, tt.toNode}, {db, tt.toPod}, {identity.World, tt.toIP}} {
				c := Connection{Subject: web, Peer: to.peer, Addr: addr, Dir: Egress, Proto: protoTCP, Port: 80}
				if why := verdicts(t, c, policies...); why.Verdict != to.want {
					t.Errorf("to %s: %s, want %s", identity.Name(to.peer), &why, to.want)
				}
			}
		})
	}
}

// A policy with several specs is one policy: set, changed and removed by its key, and counted once.
func TestSpecsComeAndGoWithTheirPolicy(t *testing.T) {
	const first, second = `{"endpointSelector":{"matchLabels":{"app":"web"}},"ingress":[{}]}`, `{"endpointSelector":{"matchExpressions":[{"key":"app","operator":"Exists"}]},"egress":[{}]}`
	both := policyOf(KindCiliumNetworkPolicy, "shop", "p", `{"specs":[`+first+`,`+second+`]}`)
	w := smallWorld(both.rec)
	e, k := build(w)
	expect := func(what string, subjects int, ingress, egress Verdict) {
		t.Helper()
		if n, _ := e.PolicySubjects(both.Key()); n != subjects {
			t.Errorf("%s: %d subjects, want %d", what, n, subjects)
		}
		if in, out := k.decide(tcp80(web, db, Ingress)).Verdict, k.decide(tcp80(web, db, Egress)).Verdict; in != ingress || out != egress {
			t.Errorf("%s: %s in and %s out, want %s and %s", what, in, out, ingress, egress)
		}
	}
	expect("both", 2, Deny, Deny)
	r := NewReference(w)
	if n := r.PolicySubjects[both.Key()]; n != 2 {
		t.Errorf("the reference counts %d subjects", n)
	}
	places := map[string]int{}
	for _, rule := range r.Rules {
		if rule.PolicyKey == both.Key() {
			places[rule.In]++
		}
	}
	if places["specs[0]"] != 2 || places["specs[1]"] != 2 || len(places) != 2 {
		t.Errorf("rules are in %v", places)
	}
	set := func(m *Model) {
		e.SetPolicy(both.Key(), m)
		k.apply(e.Step())
	}
	set(policyOf(KindCiliumNetworkPolicy, "shop", "p", `{"spec":`+first+`}`))
	expect("the first", 1, Deny, Allow)
	set(both)
	expect("both again", 2, Deny, Deny)
	set(nil)
	expect("none", 0, Allow, Allow)
	if slices.ContainsFunc(sortedKeys(e.policies.byKey), func(key string) bool { return strings.HasPrefix(key, both.Key()) }) || len(e.specs) > 0 {
		t.Error("something is left of it")
	}
}

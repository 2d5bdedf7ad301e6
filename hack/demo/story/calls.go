// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// deathstar is the global service by its DNS name, as every client in the story calls it.
const deathstar = "http://deathstar.starwars.svc.cluster.local"

// answer is what the sample server says of itself.
type answer struct {
	Pod     string `json:"pod"`
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Client  string `json:"client"`
	Message string `json:"message"`
}

func parseAnswers(out string) ([]answer, error) {
	var answers []answer
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			return nil, fmt.Errorf("parse answer %q: %w", line, err)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// land asks the death star for a landing permit from a client pod; the error is the client's.
func (w *World) land(ctx context.Context, cluster, client string, count int) ([]answer, string, error) {
	out, err := w.Sample(ctx, cluster, client, "call", "--method", "POST", "--count", fmt.Sprint(count),
		"--interval", "20ms", "--timeout", "2s", deathstar+"/v1/request-landing")
	if err != nil {
		return nil, out, err
	}
	answers, err := parseAnswers(out)
	return answers, out, err
}

// answeredBy waits until count calls in a row are all answered by pods of one cluster.
func (w *World) answeredBy(ctx context.Context, from, client, wanted string, count int) (string, time.Duration, error) {
	var shown string
	took, err := Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
		answers, out, err := w.land(ctx, from, client, count)
		shown = out
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.Cluster != wanted || a.Message != "Ship landed" {
				return Unexpected("every answer from a pod of "+wanted, out, "kubectl fairlead status; kubectl -n starwars get endpointslices")
			}
		}
		return nil
	})
	return shown, took, err
}

// CallAcrossClusters shows that a service name in east leads to west's pods, by TCP and UDP.
func (w *World) CallAcrossClusters(ctx context.Context) error {
	w.Title("A pod in east calls a service whose pods are all in west")
	w.Say("$ kubectl --context east exec deploy/tiefighter -- /sample call --method POST %s/v1/request-landing", deathstar)
	out, _, err := w.answeredBy(ctx, East, "tiefighter", West, 4)
	w.Show(out)
	if err != nil {
		return err
	}
	w.Passed("west's pods answered east's, by the service's DNS name")
	answers, err := parseAnswers(out)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if !strings.HasPrefix(a.Client, "10.14.") && !strings.HasPrefix(a.Client, "[fd00:14:") {
			return Unexpected("the client's own pod address, from east's 10.14.0.0/16", out, "a masquerade on the way; nft list ruleset on east's nodes")
		}
	}
	w.Passed("and saw the client pod's own address, although east's CNI masquerades")
	udp, err := w.Sample(ctx, East, "tiefighter", "udp", "--count", "3", "deathstar.starwars.svc.cluster.local:8081")
	if err != nil {
		return Unexpected("UDP echoes from the service's address", udp+err.Error(), "kubectl fairlead observe --verdict denied")
	}
	w.Show(udp)
	w.Passed("UDP too, answered from the address it was sent to")
	return nil
}

// Failover moves the backends from west to east and shows that clients of both clusters follow.
func (w *World) Failover(ctx context.Context) error {
	w.Title("West loses all its pods; east's take over")
	if err := w.scale(ctx, East, 2); err != nil {
		return err
	}
	if _, err := w.Kubectl(ctx, East, "rollout", "status", "-n", "starwars", "deploy/deathstar", "--timeout=180s"); err != nil {
		return err
	}
	if err := w.scale(ctx, West, 0); err != nil {
		return err
	}
	for _, from := range []string{East, West} {
		out, took, err := w.answeredBy(ctx, from, "tiefighter", East, 8)
		if err != nil {
			w.Show(out)
			return err
		}
		w.Passed("a client in %s is answered by east's pods, %.1f s after west was scaled to zero", from, took.Seconds())
	}
	w.Say("Back again: two pods in each cluster.")
	if err := w.scale(ctx, West, 2); err != nil {
		return err
	}
	if _, err := w.Kubectl(ctx, West, "rollout", "status", "-n", "starwars", "deploy/deathstar", "--timeout=180s"); err != nil {
		return err
	}
	var shown string
	took, err := Eventually(ctx, 120*time.Second, func(ctx context.Context) error {
		answers, out, err := w.land(ctx, East, "tiefighter", 16)
		if err != nil {
			return err
		}
		counts := map[string]int{}
		for _, a := range answers {
			counts[a.Cluster]++
		}
		shown = fmt.Sprintf("%d calls from east: %d answered in %s, %d in %s", len(answers), counts[East], East, counts[West], West)
		if counts[East] == 0 || counts[West] == 0 {
			return Unexpected("answers from both clusters", out, "kubectl fairlead status")
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.Show(shown)
	w.Passed("both clusters share the load, %.1f s after west was back", took.Seconds())
	return nil
}

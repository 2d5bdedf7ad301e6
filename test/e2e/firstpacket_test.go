// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/demo/story"
)

// firstPacket starts many pods at once, each of which calls at once what it may call and what it may not. East's bridge plugin
// gets ours behind it for that; west has only ours.
var firstPacket = []story.Step{
	{Name: "chained", Do: chained},
	{Name: "no-packet-before-policy", Do: noPacketBeforePolicy},
	{Name: "unchained", Do: unchained},
}

// crowd is how many pods start at once in each cluster. A pod costs its node about two seconds of CPU until it is gone again.
const crowd = 20

const rush = `
apiVersion: v1
kind: Namespace
metadata: {name: rush}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: rush, namespace: rush}
spec:
  podSelector: {matchLabels: {app: rush}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: open}}}]}]
`

// server is a pod that nothing protects: only the caller's own policy can hold a packet to it back.
func server(name string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: rush, labels: {app: %[1]s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: sample
      image: fairlead.local/sample:dev
      imagePullPolicy: Never
      args: [serve]
      readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`, name)
}

// caller opens one connection that policy allows, and beside it many that policy denies.
func caller(n int, open, shut string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: rush-%d, namespace: rush, labels: {app: rush}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: denied
      image: fairlead.local/sample:dev
      imagePullPolicy: Never
      args: [call, --count, "60", --interval, 20ms, --timeout, 100ms, "http://%s:8080/"]
    - name: allowed
      image: fairlead.local/sample:dev
      imagePullPolicy: Never
      args: [call, --timeout, 60s, "http://%s:8080/"]
`, n, shut, open)
}

func setCNI(w *story.World, ctx context.Context, mode string) error {
	patch := fmt.Sprintf(`[{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["--cni=%s"]}]`, mode)
	if _, err := w.Kubectl(ctx, story.East, "patch", "-n", "fairlead-system", "ds/fairlead-nodeagent", "--type=json", "-p", patch); err != nil {
		return err
	}
	_, err := w.Kubectl(ctx, story.East, "rollout", "status", "-n", "fairlead-system", "ds/fairlead-nodeagent", "--timeout=240s")
	return err
}

func chained(w *story.World, ctx context.Context) error {
	if err := setCNI(w, ctx, "chained"); err != nil {
		return err
	}
	if err := configured(w, ctx, true); err != nil {
		return err
	}
	w.Passed("the agents of east put the plugin behind the bridge plugin")
	return nil
}

func unchained(w *story.World, ctx context.Context) error {
	if err := setCNI(w, ctx, "none"); err != nil {
		return err
	}
	return configured(w, ctx, false)
}

// configured waits until our plugin is in the configurations of east's nodes, or isn't.
func configured(w *story.World, ctx context.Context, want bool) error {
	const theirs = "/etc/cni/net.d/10-reference.conflist"
	for _, node := range []string{"east-1", "east-2"} {
		if _, err := story.Eventually(ctx, 180*time.Second, func(ctx context.Context) error {
			text, err := w.Lab(ctx, "exec", "--node", node, "--", "cat", theirs)
			if err == nil && strings.Contains(text, "fairlead-cni") != want {
				err = story.Unexpected(fmt.Sprintf("our plugin in %s of %s: %t", theirs, node, want), text, "kubectl -n fairlead-system logs ds/fairlead-nodeagent")
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func noPacketBeforePolicy(w *story.World, ctx context.Context) error {
	for _, cluster := range []string{story.East, story.West} {
		if err := rushIn(w, ctx, cluster); err != nil {
			return err
		}
	}
	return nil
}

func rushIn(w *story.World, ctx context.Context, cluster string) error {
	if err := w.Apply(ctx, cluster, rush+server("open")+server("shut")); err != nil {
		return err
	}
	if _, err := w.Kubectl(ctx, cluster, "wait", "-n", "rush", "--for=condition=Ready", "pod/open", "pod/shut", "--timeout=180s"); err != nil {
		return err
	}
	addresses, err := w.Kubectl(ctx, cluster, "get", "pods", "-n", "rush", "open", "shut", "-o", "jsonpath={.items[*].status.podIP}")
	if err != nil {
		return err
	}
	at := strings.Fields(addresses)
	if len(at) != 2 {
		return story.Unexpected("two addresses", addresses, "kubectl -n rush get pods -o wide")
	}
	var pods strings.Builder
	for n := range crowd {
		pods.WriteString(caller(n, at[0], at[1]))
	}
	if err := w.Apply(ctx, cluster, pods.String()); err != nil {
		return err
	}
	// They all fail: what is denied makes its container fail.
	if _, err := w.Kubectl(ctx, cluster, "wait", "-n", "rush", "-l", "app=rush", "--for=jsonpath={.status.phase}=Failed", "pod", "--timeout=480s"); err != nil {
		return err
	}
	count := func(container, text string) (int, error) {
		out, err := w.Kubectl(ctx, cluster, "logs", "-n", "rush", "-l", "app=rush", "-c", container, "--tail=-1", fmt.Sprintf("--max-log-requests=%d", crowd))
		return strings.Count(out, text), err
	}
	answers, err := count("allowed", `{"pod"`)
	if err != nil {
		return err
	}
	leaks, err := count("denied", `{"pod"`)
	if err != nil {
		return err
	}
	refused, err := count("denied", "TIMEOUT")
	if err != nil {
		return err
	}
	if answers != crowd || leaks != 0 || refused == 0 {
		return story.Unexpected(fmt.Sprintf("%d allowed connections and no denied one in %s", crowd, cluster),
			fmt.Sprintf("%d allowed, %d denied ones got through, %d timed out", answers, leaks, refused), "kubectl fairlead observe")
	}
	w.Passed("%s: of %d pods that started at once, each made its allowed connection, and none of %d denied ones got through", cluster, crowd, refused)
	_, err = w.Kubectl(ctx, cluster, "delete", "namespace", "rush", "--wait=false")
	return err
}

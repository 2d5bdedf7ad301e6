// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/kube"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
)

// worker is the program with which Cyclonus tries many connections from a pod. The image has ours in its place.
const worker = "/worker"

// mostPatience makes 8 seconds the most that a connection may take.
const mostPatience = 3

// cluster is Cyclonus' access to Kubernetes, but for how commands run in pods, and for races that it loses now and then.
type cluster struct {
	*kube.Kubernetes
	ctx context.Context //nolint:containedctx // Cyclonus' interface passes none

	mu       sync.Mutex
	sessions map[string]*session // by pod
	asked    map[string]int      // how often in this case, by pod
}

// begin begins a case.
func (c *cluster) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = map[string]int{}
}

// timeout is how many seconds a connection of a pod may take: at first one, as Cyclonus' own worker gives it, and each time that the
// pod is asked again twice as many. Where a machine has more to do than it can, time runs out on what is allowed.
func (c *cluster) timeout(pod string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 1 << min(c.asked[pod], mostPatience)
	c.asked[pod]++
	return n
}

func connect(ctx context.Context, kubeconfig string) (*cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %q: %w", kubeconfig, err)
	}
	config.QPS = -1 // a case begins with fifty requests
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the cluster: %w", err)
	}
	return &cluster{Kubernetes: &kube.Kubernetes{ClientSet: client, RestConfig: config}, ctx: ctx, sessions: map[string]*session{}, asked: map[string]int{}}, nil
}

// remove deletes namespaces, and waits until they are gone.
func (c *cluster) remove(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := c.ClientSet.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete namespace %s: %w", name, err)
		}
	}
	for _, name := range names {
		for {
			_, err := c.ClientSet.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				break
			}
			if err := pause(ctx, time.Second); err != nil {
				return fmt.Errorf("wait until namespace %s is gone: %w", name, err)
			}
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// CreateNamespace waits for the namespace's service account, without which no pod is admitted.
func (c *cluster) CreateNamespace(ns *v1.Namespace) (*v1.Namespace, error) {
	created, err := c.Kubernetes.CreateNamespace(ns)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	for {
		_, err := c.ClientSet.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return created, nil
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return nil, fmt.Errorf("wait for the service account of namespace %s: %w", ns.Name, err)
		}
	}
}

// SetNamespaceLabels tries again if somebody else wrote the object in between, and writes nothing if nothing changes: Cyclonus sets all
// labels before each case.
func (c *cluster) SetNamespaceLabels(namespace string, labels map[string]string) (*v1.Namespace, error) {
	var ns *v1.Namespace
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var err error
		if ns, err = c.ClientSet.CoreV1().Namespaces().Get(c.ctx, namespace, metav1.GetOptions{}); err != nil || maps.Equal(ns.Labels, labels) {
			return err
		}
		ns.Labels = labels
		_, err = c.ClientSet.CoreV1().Namespaces().Update(c.ctx, ns, metav1.UpdateOptions{})
		return err
	})
	return ns, err
}

// SetPodLabels is as SetNamespaceLabels.
func (c *cluster) SetPodLabels(namespace, name string, labels map[string]string) (*v1.Pod, error) {
	var pod *v1.Pod
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var err error
		if pod, err = c.ClientSet.CoreV1().Pods(namespace).Get(c.ctx, name, metav1.GetOptions{}); err != nil || maps.Equal(pod.Labels, labels) {
			return err
		}
		pod.Labels = labels
		_, err = c.ClientSet.CoreV1().Pods(namespace).Update(c.ctx, pod, metav1.UpdateOptions{})
		return err
	})
	return pod, err
}

// ExecuteRemoteCommand passes what Cyclonus gives its worker to the one that runs in the pod.
func (c *cluster) ExecuteRemoteCommand(namespace, pod, container string, command []string) (string, string, error, error) {
	if len(command) != 3 || command[0] != worker || command[1] != "--jobs" {
		return "", "", nil, fmt.Errorf("command %q: only Cyclonus' worker can be run", command)
	}
	key := namespace + "/" + pod
	order := fmt.Sprintf(`{"Seconds":%d,"Batch":%s}`, c.timeout(key), command[2])
	var err error
	for range 2 { // a session may have ended with its pod's last incarnation
		var s *session
		if s, err = c.session(key, namespace, pod, container); err != nil {
			break
		}
		var answer string
		if answer, err = s.ask(c.ctx, order); err == nil {
			return answer, "", nil, nil
		}
		c.drop(key, s)
	}
	return "", "", nil, err
}

func (c *cluster) session(key, namespace, pod, container string) (*session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[key]; s != nil {
		return s, nil
	}
	s, err := c.open(namespace, pod, container)
	if err != nil {
		return nil, err
	}
	c.sessions[key] = s
	return s, nil
}

func (c *cluster) drop(key string, s *session) {
	s.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[key] == s {
		delete(c.sessions, key)
	}
}

func (c *cluster) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.close()
	}
}

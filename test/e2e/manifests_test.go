package e2e_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

// allRunning is what most manifests become.
func allRunning(p *corev1.Pod) error {
	if p.Status.Phase != corev1.PodRunning || !isReady(p) {
		return fmt.Errorf("pod %s: phase %s, %s", p.Name, p.Status.Phase, states(p))
	}
	return nil
}

// succeeded is what those become that do one thing.
func succeeded(p *corev1.Pod) error {
	if p.Status.Phase != corev1.PodSucceeded {
		return fmt.Errorf("pod %s: phase %s, %s", p.Name, p.Status.Phase, states(p))
	}
	return nil
}

// manifests are the published examples of test/manifests that are accepted
// (docs/manifests.md) with what they become, one after the other in one namespace.
var manifests = []struct {
	file      string
	namespace string // that the manifest names
	pods      int
	becomes   func(*corev1.Pod) error
	log       string // that one of its pods writes
	port      int    // that its pods answer HTTP at
	page      string
	needs     []string // commands that make what it refers to
	asked     string   // a command in its first pod
	says      string   // and its answer
}{
	{file: "namespace-dev"},
	{file: "configmaps"},
	{file: "secret"},
	{file: "replication", pods: 3, becomes: allRunning, port: 80, page: "Welcome to nginx!"},
	{file: "pod", pods: 1, becomes: allRunning, port: 80, page: "Welcome to nginx!"},
	{file: "simple-pod", pods: 1, becomes: allRunning, port: 80, page: "Welcome to nginx!"},
	{file: "pod-nginx", pods: 1, becomes: allRunning, port: 80, page: "Welcome to nginx!"},
	{file: "pod-nginx-required-affinity", pods: 1, becomes: allRunning, port: 80, page: "Welcome to nginx!"},
	{file: "pod-with-toleration", pods: 1, becomes: allRunning, port: 80, page: "Welcome to nginx!"},
	{file: "commands", pods: 1, log: "command-demo", becomes: func(p *corev1.Pod) error {
		// It prints KUBERNETES_PORT too, which is nowhere without a service: exit code 1, again and again.
		if s := p.Status.ContainerStatuses; len(s) == 0 || s[0].RestartCount == 0 {
			return fmt.Errorf("%s", states(p))
		}
		return nil
	}},
	{file: "counter-pod", pods: 1, becomes: allRunning, log: "1: "},
	{file: "cpu-request-limit", namespace: "cpu-example", pods: 1, becomes: allRunning},
	{file: "memory-request-limit", namespace: "mem-example", pods: 1, becomes: allRunning, log: "took 157286400 bytes"},
	{file: "dapi-envars-pod", pods: 1, becomes: allRunning, log: "dapi-envars-fieldref"},
	{file: "dnsutils", pods: 1, becomes: allRunning},
	{file: "envars", pods: 1, becomes: allRunning, port: 8080, page: "Hello, world!"},
	{file: "qos-pod", pods: 1, port: 80, page: "Welcome to nginx!", becomes: func(p *corev1.Pod) error {
		if p.Status.QOSClass != corev1.PodQOSGuaranteed {
			return fmt.Errorf("QoS class %s", p.Status.QOSClass)
		}
		return allRunning(p)
	}},
	{file: "exec-liveness", pods: 1, becomes: allRunning},
	{file: "http-liveness", pods: 1, becomes: func(p *corev1.Pod) error {
		// It says that it is well for 10 s.
		if s := p.Status.ContainerStatuses; len(s) == 0 || s[0].RestartCount == 0 {
			return fmt.Errorf("%s", states(p))
		}
		return nil
	}},
	{file: "tcp-liveness-readiness", pods: 1, becomes: allRunning, port: 8080, page: "goproxy"},
	{file: "grpc-liveness", pods: 1, becomes: allRunning, log: "serving"},
	{file: "lifecycle-events", pods: 1, becomes: allRunning, port: 80, page: "Welcome to nginx!"},
	{
		file: "pod-configmap-envFrom", pods: 1, becomes: succeeded, // its shell does not print a name like special.how
		needs: []string{"apply -f ../manifests/configmaps.yaml"},
	},
	{
		file: "pod-configmap-volume", pods: 1, becomes: succeeded, log: "special.how",
		needs: []string{"apply -f ../manifests/configmaps.yaml"},
	},
	{
		file: "secret-pod", pods: 1, becomes: allRunning, asked: "cat /etc/secret-volume/username", says: "my-app",
		needs: []string{"apply -f ../manifests/secret.yaml"},
	},
	{
		file: "secret-envars-pod", pods: 1, becomes: allRunning, asked: "printenv SECRET_PASSWORD", says: "39528$vdg7Jb",
		needs: []string{"apply -f ../manifests/secret.yaml"},
	},
	{
		file: "projected", pods: 1, becomes: allRunning, asked: "cat /projected-volume/username", says: "admin",
		needs: []string{"create secret generic user --from-literal=username=admin", "create secret generic pass --from-literal=password=1f2d1e2e67df"},
	},
	{file: "init-containers", pods: 1, becomes: func(p *corev1.Pod) error {
		// It asks a machine on the internet, which no test reaches.
		if s := p.Status.InitContainerStatuses; p.Status.Phase != corev1.PodPending || len(s) == 0 || s[0].RestartCount == 0 {
			return fmt.Errorf("phase %s, %s", p.Status.Phase, states(p))
		}
		return nil
	}},
	{file: "redis", pods: 1, becomes: allRunning, log: "Ready to accept connections"},
	{file: "security-context", pods: 1, becomes: allRunning, port: 8080, page: "Hello Kubernetes!"},
	{file: "security-context-4", pods: 1, becomes: allRunning, port: 8080, page: "Hello, world!"},
	{file: "two-container-pod", pods: 1, becomes: func(p *corev1.Pod) error {
		for _, c := range p.Status.ContainerStatuses {
			if c.Name == "nginx-container" && !c.Ready || c.Name == "debian-container" && c.RestartCount == 0 {
				return fmt.Errorf("%s", states(p))
			}
		}
		return nil
	}},
	{file: "cassandra-controller", pods: 2, becomes: allRunning, port: 9042, page: "cassandra"},
	{file: "frontend-controller", pods: 3, becomes: allRunning, port: 80, page: "Guestbook"},
	{file: "kitten-rc", pods: 1, becomes: allRunning, port: 80, page: "kitten"},
	{file: "nautilus-rc", pods: 2, becomes: allRunning, port: 80, page: "nautilus"},
	{file: "redis-master-controller", pods: 1, becomes: allRunning, log: "Ready to accept connections"},
	{file: "redis-slave-controller", pods: 2, becomes: allRunning, log: "Ready to accept connections"},
}

func TestPublishedManifestsRunUnchanged(t *testing.T) {
	h := start(t, "busybox", "debian", "nginx", "redis", "stress", "hello-app", "node-hello",
		"update-demo-kitten", "update-demo-nautilus", "gb-frontend", "cassandra", "liveness", "goproxy", "etcd")
	h.Troupe("label", "node", h.Name, "disktype=ssd")
	accepted, err := os.ReadFile("../../docs/manifests.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range manifests {
		known[m.file] = true
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(.+)\\.yaml` \\| accepted ").FindAllStringSubmatch(string(accepted), -1) {
		if !known[m[1]] {
			t.Errorf("%s is accepted, and no line of this table says what it becomes", m[1])
		}
	}
	for _, m := range manifests {
		ok := t.Run(m.file, func(t *testing.T) {
			h := h.For(t)
			file := "../manifests/" + m.file + ".yaml"
			namespace := "default"
			if m.namespace != "" {
				namespace = m.namespace
				h.Troupe("create", "namespace", namespace)
			}
			for _, command := range m.needs {
				h.Troupe(strings.Fields(command)...)
			}
			h.Troupe("apply", "-f", file)
			if m.pods == 0 {
				h.Troupe("get", "-f", file)
				h.Troupe("delete", "-f", file)
				return
			}
			var all []corev1.Pod
			lab.Eventually(t, patience, "its pods are what they should be", func() error {
				l, err := h.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
				if err != nil {
					return err
				}
				if all = l.Items; len(all) != m.pods {
					return fmt.Errorf("%d pods, want %d", len(all), m.pods)
				}
				for i := range all {
					if err := m.becomes(&all[i]); err != nil {
						return err
					}
				}
				return nil
			})
			if m.log != "" {
				lab.Eventually(t, patience, "its log has "+m.log, func() error {
					if out := h.Troupe("logs", all[0].Name, "-n", namespace); !strings.Contains(out, m.log) {
						return fmt.Errorf("%s", out)
					}
					return nil
				})
			}
			if m.port != 0 {
				if page := answers(t, h, fmt.Sprintf("http://%s:%d/", all[0].Status.PodIP, m.port)); !strings.Contains(page, m.page) {
					t.Errorf("page:\n%s", page)
				}
			}
			if m.asked != "" {
				if out := h.Troupe(append([]string{"exec", all[0].Name, "-n", namespace, "--"}, strings.Fields(m.asked)...)...); strings.TrimSpace(out) != m.says {
					t.Errorf("%s says %q, want %q", m.asked, out, m.says)
				}
			}
			h.Troupe("delete", "-f", file, "--grace-period=1")
			if len(m.needs) > 0 {
				h.Troupe("delete", "configmaps,secrets", "--all")
			}
			if m.namespace != "" {
				h.Troupe("delete", "namespace", namespace)
			}
			lab.Eventually(t, patience, "its pods are gone", func() error {
				l, err := h.Client().CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
				if err == nil && len(l.Items) > 0 {
					err = fmt.Errorf("%d are there", len(l.Items))
				}
				return err
			})
		})
		if !ok {
			break // what it left would fail the next ones too
		}
	}
}

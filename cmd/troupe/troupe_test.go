package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

// asTroupe makes the test's own binary the command.
const asTroupe = "TROUPE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asTroupe) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// result is what a command did.
type result struct {
	out, err string
	code     int
}

// troupe runs the command against a socket.
func troupe(t *testing.T, socket, stdin string, args ...string) result {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), asTroupe+"=1", "TROUPE_SOCKET="+socket, "HTTP_PROXY=http://127.0.0.1:1", "HOME="+t.TempDir())
	c.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("troupe %s: %v", strings.Join(args, " "), err)
	}
	return result{out.String(), errOut.String(), c.ProcessState.ExitCode()}
}

// has fails unless the command ended with 0 and printed all of these.
func (r result) has(t *testing.T, want ...string) {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("exit code %d: %s%s", r.code, r.out, r.err)
	}
	for _, w := range want {
		if !strings.Contains(r.out, w) {
			t.Errorf("no %q in:\n%s%s", w, r.out, r.err)
		}
	}
}

// failed fails unless the command ended with code and said all of these.
func (r result) failed(t *testing.T, code int, want ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d: %s%s", r.code, code, r.out, r.err)
	}
	for _, w := range want {
		if !strings.Contains(r.err, w) {
			t.Errorf("no %q in:\n%s", w, r.err)
		}
	}
}

const rc = `apiVersion: v1
kind: ReplicationController
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: "nginx:1.14.2", ports: [{containerPort: 80}]}]}
`

const pod = `apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one}}
spec: {nodeName: n1, containers: [{name: c, image: busybox, args: [sleep, "9"]}]}
`

func TestKubectlsVerbs(t *testing.T) {
	s := gatewaytest.Start(t, containers(t))
	run := func(stdin string, args ...string) result { return troupe(t, s.Socket, stdin, args...) }

	run(rc, "apply", "-f", "-").has(t, "replicationcontroller/web created")
	run(rc, "apply", "-f", "-").has(t, "replicationcontroller/web unchanged")
	run(strings.Replace(rc, "replicas: 3", "replicas: 4", 1), "apply", "-f", "-").has(t, "replicationcontroller/web configured")
	run("", "get", "rc", "web", "-o", "jsonpath={.spec.replicas}").has(t, "4")
	run("", "scale", "rc", "web", "--replicas=2").has(t, "replicationcontroller/web scaled")
	run("", "get", "rc").has(t, "NAME", "DESIRED", "web    2")
	run("", "get", "rc", "-o", "wide").has(t, "CONTAINERS", "nginx:1.14.2", "app=web")
	run("", "get", "rc", "-o", "name").has(t, "replicationcontroller/web")
	run("", "get", "rc", "web", "-o", "yaml").has(t, "kind: ReplicationController", "replicas: 2")
	run("", "get", "rc", "web", "-o", "json").has(t, `"kind": "ReplicationController"`)
	run("", "get", "rc", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas").has(t, "web   2")
	run("", "get", "rc", "-l", "app=web").has(t, "web")
	run("", "describe", "rc", "web").has(t, "Name:         web", "Replicas:     0 current / 2 desired", "nginx:1.14.2", "Events:")

	run(pod, "create", "-f", "-").has(t, "pod/one created")
	run(pod, "create", "-f", "-").failed(t, 1, "AlreadyExists", `"one" already exists`)
	run("", "create", "namespace", "other").has(t, "namespace/other created")
	run(pod, "apply", "-n", "other", "-f", "-").has(t, "pod/one created")
	run("", "get", "pods", "-A").has(t, "default     one", "other       one")
	run("", "get", "pods", "-n", "other").has(t, "one")
	run("", "describe", "pod", "one").has(t, "Name:         one", "Image:", "Events:")
	run("", "describe", "namespace", "other").has(t, "Name:         other", "Active")
	run("", "label", "pod", "one", "tier=front").has(t, "pod/one labeled")
	run("", "get", "pods", "-L", "tier").has(t, "front")
	run("", "create", "configmap", "c", "--from-literal=a=b").has(t, "configmap/c created")
	run("", "create", "secret", "generic", "s", "--from-literal=a=b").has(t, "secret/s created")
	run("", "get", "all,cm,secret").failed(t, 0)
	run("", "api-resources", "-o", "name").has(t, "pods", "replicationcontrollers", "namespaces", "nodes", "events", "configmaps", "secrets")

	run("", "logs", "one").has(t, "log of one/c")
	run("", "exec", "one", "--", "echo", "hello").has(t, "hello")
	run("from here", "exec", "-i", "one", "--", "cat").has(t, "from here")
	run("", "exec", "one", "--", "sh", "-c", "echo no >&2; exit 7").failed(t, 7, "no", "exit code 7")

	run("", "delete", "rc", "web", "--wait=false").has(t, `replicationcontroller "web" deleted`)
	run("", "delete", "pod", "one", "--grace-period=0", "--force", "--wait=false").has(t, `"one" force deleted`)
	run("", "get", "pod", "two").failed(t, 1, `pods "two" not found`)
}

func TestANodeIsDescribed(t *testing.T) {
	s := gatewaytest.Start(t, containers(t))
	s.Must(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	troupe(t, s.Socket, "", "describe", "node", "n1").has(t, "Name:               n1", "Non-terminated Pods:")
	troupe(t, s.Socket, "", "get", "nodes").has(t, "n1")
	troupe(t, s.Socket, "", "label", "node", "n1", "disktype=ssd").has(t, "node/n1 labeled")
}

func TestWrongManifests(t *testing.T) {
	s := gatewaytest.Start(t, containers(t))
	deployment := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"
	r := troupe(t, s.Socket, deployment, "apply", "-f", "-")
	r.failed(t, 1, `Deployment "web"`, "no kind Deployment in apps/v1")
	if strings.Count(r.err, "\n") != 1 {
		t.Errorf("more than one line:\n%s", r.err)
	}
	bad := strings.ReplaceAll(pod, "image: busybox", "image: ''")
	bad = strings.ReplaceAll(bad, "name: c,", "name: C_,")
	troupe(t, s.Socket, bad, "apply", "-f", "-").failed(t, 1, "spec.containers[0].image", "spec.containers[0].name")
	troupe(t, s.Socket, strings.ReplaceAll(pod, "args:", "arsg:"), "apply", "-f", "-").failed(t, 1, "arsg")
	troupe(t, s.Socket, "", "get", "deployments").failed(t, 1, `the server doesn't have a resource type "deployments"`)
}

func TestWatch(t *testing.T) {
	s := gatewaytest.Start(t, containers(t))
	c := exec.CommandContext(t.Context(), os.Args[0], "get", "pods", "-w", "-o", "name")
	c.Env = append(os.Environ(), asTroupe+"=1", "TROUPE_SOCKET="+s.Socket)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	troupe(t, s.Socket, pod, "apply", "-f", "-").has(t, "created")
	line := make([]byte, len("pod/one\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "pod/one\n" {
		t.Fatalf("watch: %q, %v", line, err)
	}
}

func TestNoAgent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	for _, args := range [][]string{{"get", "pods"}, {"apply", "-f", "-"}, {"actors"}, {"image", "ls"}, {"logs", "x"}, {"exec", "x", "--", "ls"}} {
		r := troupe(t, socket, pod, args...)
		r.failed(t, 1, "error: no agent answers at "+socket+`: start one with "troupe up"`)
		if strings.Count(r.err, "\n") != 1 {
			t.Errorf("%v: more than one line:\n%s", args, r.err)
		}
	}
	troupe(t, socket, "", "version").has(t, "Client: troupe", "Agent:  none: no agent answers at")
	troupe(t, socket, "", "create", "configmap", "c", "--from-literal=a=b", "--dry-run=client", "-o", "yaml").has(t, "kind: ConfigMap")
}

func TestAnAgentThatDoesNotComeUp(t *testing.T) {
	dir := t.TempDir()
	agent := filepath.Join(dir, "trouped")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\necho starting\necho the journal is broken >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	args := []string{"up", "--detach", "--data-dir", filepath.Join(dir, "data"), "--run-dir", filepath.Join(dir, "run")}
	r := troupe(t, filepath.Join(dir, "s"), "", args...)
	r.failed(t, 1, "the agent did not come up", "exit status 3", "the journal is broken")

	// Its log from an earlier start is not shown again.
	if err := os.WriteFile(agent, []byte("#!/bin/sh\nexit 4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r = troupe(t, filepath.Join(dir, "s"), "", args...)
	r.failed(t, 1, "exit status 4")
	if strings.Contains(r.err, "the journal is broken") {
		t.Errorf("an old log:\n%s", r.err)
	}
}

func TestHelpSpeaksOfTroupe(t *testing.T) {
	root := newRoot(genericiooptions.NewTestIOStreamsDiscard())
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		text := cmd.Short + "\n" + cmd.Long + "\n" + cmd.Example + "\n" + cmd.UsageString()
		for line := range strings.Lines(text) {
			if kubectlsName.MatchString(line) && !strings.Contains(line, "as with kubectl") {
				t.Errorf("%s speaks of kubectl: %s", cmd.CommandPath(), strings.TrimSpace(line))
			}
		}
		for _, c := range cmd.Commands() {
			look(c)
		}
	}
	look(root)
}

// kubectlsName is the program's, not that of annotations, field managers and URLs.
var kubectlsName = regexp.MustCompile(`\bkubectl(?:[^.\-/\w]|$|\.\s|\.$)`)

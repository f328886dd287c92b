package gateway_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/utils/ptr"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

// kubectl runs Kubernetes' own client, of the pinned release, in this process.
func kubectl(t *testing.T, s *gatewaytest.Server, manifest string, args ...string) (out string, failed bool) {
	t.Helper()
	var b bytes.Buffer
	if manifest != "" {
		file := filepath.Join(t.TempDir(), "manifest.yaml")
		if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-f", file)
	}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag()
	flags.KubeConfig = ptr.To("/dev/null")
	flags.CacheDir = ptr.To(t.TempDir())
	flags.WrapConfigFn = func(*rest.Config) *rest.Config { return s.Config() }
	type fatal struct{}
	cmdutil.BehaviorOnFatal(func(message string, _ int) {
		fmt.Fprintln(&b, message)
		panic(fatal{})
	})
	defer cmdutil.DefaultBehaviorOnFatal()
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(fatal); !ok {
				panic(p)
			}
			failed = true
		}
		out = b.String()
	}()
	c := cmd.NewKubectlCommand(cmd.KubectlOptions{
		ConfigFlags: flags,
		Arguments:   append([]string{"kubectl"}, args...),
		IOStreams:   genericiooptions.IOStreams{In: strings.NewReader(""), Out: &b, ErrOut: &b},
	})
	c.SetArgs(args)
	c.SetOut(&b)
	c.SetErr(&b)
	failed = c.Execute() != nil
	return out, failed
}

const replication = `apiVersion: v1
kind: ReplicationController
metadata:
  name: web
spec:
  replicas: %d
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: nginx, ports: [{containerPort: 80}]}
`

func TestKubectl(t *testing.T) {
	s := start(t)
	s.Must(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1.36.3+troupe"},
		},
	})
	running := pod("p")
	running.Spec.NodeName = "n1"
	s.Must(running)

	for _, step := range []struct {
		args     string
		manifest string
		want     string // a regular expression; a leading ! says that the command fails
	}{
		{args: "apply", manifest: fmt.Sprintf(replication, 3), want: "^replicationcontroller/web created\n$"},
		{args: "apply", manifest: fmt.Sprintf(replication, 3), want: "^replicationcontroller/web unchanged\n$"},
		{args: "apply", manifest: fmt.Sprintf(replication, 4), want: "^replicationcontroller/web configured\n$"},
		{args: "apply --dry-run=server", manifest: fmt.Sprintf(replication, 9), want: `^replicationcontroller/web configured \(server dry run\)`},
		{args: "diff", manifest: fmt.Sprintf(replication, 4), want: "^$"},
		{args: "apply --server-side --force-conflicts", manifest: fmt.Sprintf(replication, 5), want: "serverside-applied"},
		{args: "get rc", want: `^NAME +DESIRED +CURRENT +READY +AGE\nweb +5 +0 +0 +\d+s\n$`},
		{args: "get rc web -o wide", want: `CONTAINERS +IMAGES +SELECTOR\nweb .* web +nginx +app=web`},
		{args: "get rc web -o name", want: "^replicationcontroller/web\n$"},
		{args: "get rc web -o jsonpath={.spec.replicas}", want: "^5$"},
		{args: "get rc web -o go-template={{.spec.replicas}}", want: "^5$"},
		{args: "get rc web -o custom-columns=N:.metadata.name,R:.spec.replicas", want: `^N +R\nweb +5\n$`},
		{args: "get rc web -o json", want: `"restartPolicy": "Always"`},
		{args: "get rc web -o yaml", want: `dnsPolicy: ClusterFirst`},
		{args: "get rc web -o yaml --show-managed-fields", want: `managedFields:`},
		{args: "scale rc web --replicas=2", want: "^replicationcontroller/web scaled\n$"},
		{args: "scale rc web --current-replicas=7 --replicas=2", want: "!Expected replicas to be 7, was 2"},
		{args: "get all", want: `pod/p +0/1 +Pending(.|\n)*replicationcontroller/web +2`},
		{args: "get pods -A -l app=p", want: `NAMESPACE +NAME .*\ndefault +p `},
		{args: "get pods -n none", want: "No resources found in none namespace"},
		{args: "get pod q", want: `!Error from server \(NotFound\): pods "q" not found`},
		{args: "get nodes", want: `^NAME +STATUS +ROLES +AGE +VERSION\nn1 +Ready +<none> +\d+s +v1.36.3\+troupe\n$`},
		{args: "get ns", want: `default +Active`},
		{args: "get pods --field-selector spec.nodeName=n1", want: `p +0/1`},
		{args: "describe rc web", want: `Replicas: +0 current / 2 desired`},
		{args: "describe pod p", want: `Name: +p\n(.|\n)*QoS Class: +BestEffort`},
		{args: "describe node n1", want: `Non-terminated Pods: +\(1 in total\)`},
		{args: "logs p", want: "^log of p/main follow=false\n$"},
		{args: "logs -f p -c main", want: "^log of p/main follow=true\n$"},
		{args: "logs p -c other", want: `!container other is not valid for pod p`},
		{args: "create configmap c --from-literal=a=b", want: "^configmap/c created\n$"},
		{args: "create configmap c --from-literal=a=b", want: `!configmaps "c" already exists`},
		{args: "create secret generic s --from-literal=a=b", want: "^secret/s created\n$"},
		{args: "get secret s", want: `^NAME +TYPE +DATA +AGE\ns +Opaque +1 `},
		{args: `patch cm c -p {"data":{"x":"y"}}`, want: "^configmap/c patched\n$"},
		{args: "label cm c tier=web", want: "^configmap/c labeled\n$"},
		{args: "annotate cm c note=x", want: "^configmap/c annotated\n$"},
		{args: `patch cm c -p {"immutable":true}`, want: "^configmap/c patched\n$"},
		{args: `patch cm c -p {"data":{"x":"z"}}`, want: "!data: Forbidden: field is immutable when `immutable` is set"},
		{args: `patch cm c -p {"immutable":false}`, want: "!immutable: Forbidden: field is immutable when `immutable` is set"},
		{args: "label cm c tier=db --overwrite", want: "^configmap/c labeled\n$"},
		{args: `patch secret s -p {"immutable":true}`, want: "^secret/s patched\n$"},
		{args: `patch secret s -p {"data":{"a":"eA=="}}`, want: "!data: Forbidden: field is immutable when `immutable` is set"},
		{args: "create", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndota: {}\n", want: `!strict decoding error: unknown field "dota"`},
		{args: "apply", manifest: "apiVersion: v1\nkind: Pod\nmetadata: {name: e}\nspec: {containers: [{name: a, image: b}], volumes: [{name: v, nfs: {server: s, path: /x}}]}\n", want: `!The Pod "e" is invalid: spec.volumes\[0\].nfs: Forbidden: Troupe does not have this yet: use emptyDir, hostPath, configMap`},
		{args: "apply", manifest: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: e}\nspec: {}\n", want: `!no matches for kind "Deployment" in version "apps/v1"`},
		{args: "create deployment x --image=y", want: `!Troupe does not have deployments \(apps/v1\) yet; it has namespaces, nodes, pods`},
		{args: "explain rc --recursive", want: "terminationGracePeriodSeconds\\s+<integer>"},
		{args: "explain cm.data", want: "FIELD: data <map"},
		{args: "explain event.involvedObject.fieldPath", want: "FIELD: fieldPath <string>"},
		{args: "explain ns.status.conditions", want: "NamespaceCondition"},
		{args: "explain node.spec.taints.effect", want: "NoExecute"},
		{args: "explain secret.stringData", want: "write-only"},
		{args: "explain pod.spec.nothing", want: `!field "nothing" does not exist`},
		{args: "explain service", want: "!"},
		{args: "explain pod.spec.restartPolicy", want: "One of Always, OnFailure"},
		{args: "api-resources", want: `replicationcontrollers +rc +v1 +true +ReplicationController`},
		{args: "run q --image=busybox --restart=Never", want: "^pod/q created\n$"},
		{args: "wait --for=jsonpath={.status.phase}=Pending pod/q --timeout=5s", want: "condition met"},
		{args: "delete pod q", want: `^pod "q" deleted`},
		{args: "delete rc web", want: `^replicationcontroller "web" deleted`},
		{args: "delete cm,secret --all", want: `configmap "c" deleted(.|\n)*secret "s" deleted`},
		{args: "create ns dev", want: "^namespace/dev created\n$"},
		{args: "delete ns default", want: "!this namespace may not be deleted"},
		{args: "get events", want: "No resources found"},
	} {
		out, failed := kubectl(t, s, step.manifest, strings.Fields(step.args)...)
		want, fails := strings.CutPrefix(step.want, "!")
		if failed != fails || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("kubectl %s: failed %v\n%s\nwant %s", step.args, failed, out, step.want)
		}
	}
}

package pod

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/runtime/container"
)

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func TestContainerIDs(t *testing.T) {
	valid := regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`) // what containerd takes
	seen := map[string]bool{}
	const uid types.UID = "0f0e0d0c-0b0a-4908-8706-050403020100"
	for _, name := range []string{"c", "a--b", "a-b", strings.Repeat("x", 63), strings.Repeat("x", 62) + "y"} {
		for _, attempt := range []uint32{0, 1, 4294967295} {
			id := ContainerID(uid, name, attempt)
			if len(id) > 76 || !valid.MatchString(id) || seen[id] || UIDOf(id) != uid {
				t.Errorf("%s %d: %s", name, attempt, id)
			}
			seen[id] = true
		}
	}
	if UIDOf(string(uid)) != uid {
		t.Error("a sandbox's ID is its pod's UID")
	}
}

func TestResources(t *testing.T) {
	m := Machine{Memory: 10 << 30}
	for _, c := range []struct {
		name             string
		requests, limits corev1.ResourceList
		pod, container   container.Resources
	}{
		{
			"none", nil, nil,
			container.Resources{CPUShares: 2, PIDs: 4096},
			container.Resources{CPUShares: 2, OOMScoreAdj: 1000},
		},
		{
			"guaranteed", list("cpu", "500m", "memory", "1Gi"), list("cpu", "500m", "memory", "1Gi"),
			container.Resources{CPUShares: 1024, CPUQuota: 100_000, CPUPeriod: 100_000, Memory: 2 << 30, PIDs: 4096},
			container.Resources{CPUShares: 512, CPUQuota: 50_000, CPUPeriod: 100_000, Memory: 1 << 30, OOMScoreAdj: -997},
		},
		{
			"requests alone", list("cpu", "250m", "memory", "1Gi"), nil,
			container.Resources{CPUShares: 512, PIDs: 4096},
			container.Resources{CPUShares: 256, OOMScoreAdj: 900},
		},
		{
			"a limit is the request too", nil, list("cpu", "2"),
			container.Resources{CPUShares: 4096, CPUQuota: 400_000, CPUPeriod: 100_000, PIDs: 4096},
			container.Resources{CPUShares: 2048, CPUQuota: 200_000, CPUPeriod: 100_000, OOMScoreAdj: 999},
		},
		{
			"hardly anything", list("cpu", "1m"), list("cpu", "1m", "hugepages-2Mi", "4Mi"),
			container.Resources{CPUShares: 2, CPUQuota: 1000, CPUPeriod: 100_000, PIDs: 4096},
			container.Resources{CPUShares: 2, CPUQuota: 1000, CPUPeriod: 100_000, OOMScoreAdj: 999, HugePages: map[string]int64{"2MB": 4 << 20}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := of("", "a", "b")
			for i := range p.Spec.Containers {
				r := corev1.ResourceRequirements{Requests: c.requests.DeepCopy(), Limits: c.limits.DeepCopy()}
				if r.Requests == nil && r.Limits != nil {
					r.Requests = r.Limits // as the defaults do
				}
				p.Spec.Containers[i].Resources = r
			}
			if d := cmp.Diff(c.pod, podResources(p, m)); d != "" {
				t.Errorf("pod: %s", d)
			}
			if d := cmp.Diff(c.container, containerResources(p, &p.Spec.Containers[0], m)); d != "" {
				t.Errorf("container: %s", d)
			}
		})
	}
	t.Run("one container without a limit leaves the pod without", func(t *testing.T) {
		p := of("", "a", "b")
		p.Spec.Containers[0].Resources.Limits = list("cpu", "1", "memory", "1Gi")
		if r := podResources(p, m); r.CPUQuota != 0 || r.Memory != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("cpu", func(t *testing.T) {
		for milli, want := range map[int64]uint64{0: 2, 1: 2, 1000: 1024, 10_000_000: 262144} {
			if got := cpuShares(milli); got != want {
				t.Errorf("%dm: %d shares, want %d", milli, got, want)
			}
		}
	})
}

func TestSandboxSpec(t *testing.T) {
	yes := true
	two := "2"
	own := container.DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"example"}, Options: []string{"ndots:1", "edns0"}}
	m := Machine{Name: "n1", DNS: func() container.DNS { return own }}
	p := of("", "a")
	p.Name = strings.Repeat("n", 62) + "-long"
	p.Spec.ShareProcessNamespace = &yes
	p.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"x", "y"}}}
	p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.core.somaxconn", Value: "9"}}}
	p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"more"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "rotate"}}}
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 53, HostPort: 5353, Protocol: corev1.ProtocolUDP, HostIP: "192.0.2.1"}}
	got, err := SandboxSpec(p, m)
	if err != nil {
		t.Fatal(err)
	}
	want := container.SandboxSpec{
		ID: "u1", Pod: container.Pod{Namespace: "default", Name: p.Name, UID: "u1"}, Hostname: strings.Repeat("n", 62), SharePID: true,
		DNS:     container.DNS{Servers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"example", "more"}, Options: []string{"edns0", "ndots:2", "rotate"}},
		Hosts:   []container.Host{{Addr: netip.MustParseAddr("192.0.2.9"), Names: []string{"x", "y"}}},
		Sysctls: map[string]string{"net.core.somaxconn": "9"}, QOS: "BestEffort", Resources: container.Resources{CPUShares: 2, PIDs: 4096},
		HostPorts: []container.HostPort{{Protocol: "UDP", HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 5353, ContainerPort: 53}},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
		t.Error(d)
	}
	if own.Options[0] != "ndots:1" {
		t.Error("the machine's own configuration was changed")
	}
	p.Spec.DNSPolicy, p.Spec.HostNetwork = corev1.DNSNone, true
	if got, err = SandboxSpec(p, m); err != nil || got.Hostname != "" || len(got.HostPorts) > 0 || len(got.DNS.Servers) != 2 || len(got.DNS.Searches) != 1 {
		t.Errorf("on the host's network, DNS of its own: %+v, %v", got, err)
	}
}

func TestSecurity(t *testing.T) {
	yes, no, root, user := true, false, int64(0), int64(1000)
	unmasked := corev1.UnmaskedProcMount
	for _, c := range []struct {
		name  string
		pod   *corev1.PodSecurityContext
		own   *corev1.SecurityContext
		image string
		want  container.Security
		err   string
	}{
		{name: "nothing said", want: container.Security{Seccomp: "RuntimeDefault", MaskedPaths: true}},
		{
			name: "the container over the pod",
			pod:  &corev1.PodSecurityContext{RunAsUser: &root, RunAsGroup: &root, FSGroup: &user, SupplementalGroups: []int64{7}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}},
			own:  &corev1.SecurityContext{RunAsUser: &user, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}, Drop: []corev1.Capability{"CAP_ALL"}}},
			want: container.Security{User: "1000", RunAsGroup: &root, Groups: []int64{1000, 7}, AddCaps: []string{"NET_ADMIN"}, DropCaps: []string{"ALL"}, ReadOnlyRoot: true, NoNewPrivs: true, Seccomp: "Unconfined", MaskedPaths: true},
		},
		{name: "privileged", own: &corev1.SecurityContext{Privileged: &yes, ProcMount: &unmasked}, want: container.Security{Privileged: true, Seccomp: "Unconfined"}},
		{
			name: "a profile of the machine", own: &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: new("p.json")}},
			want: container.Security{Seccomp: "localhost/p.json", MaskedPaths: true},
		},
		{name: "not root, and is not", pod: &corev1.PodSecurityContext{RunAsNonRoot: &yes}, image: "1000:0", want: container.Security{RunAsNonRoot: true, Seccomp: "RuntimeDefault", MaskedPaths: true}},
		{name: "not root, and the image is", pod: &corev1.PodSecurityContext{RunAsNonRoot: &yes}, err: `container has runAsNonRoot and image will run as root (pod: "web_default(u1)", container: a)`},
		{name: "not root, and nobody can tell", pod: &corev1.PodSecurityContext{RunAsNonRoot: &yes}, image: "www", err: `container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: "web_default(u1)", container: a)`},
		{name: "not root, and asks for root", pod: &corev1.PodSecurityContext{RunAsNonRoot: &yes}, own: &corev1.SecurityContext{RunAsUser: &root}, err: `container's runAsUser breaks non-root policy (pod: "web_default(u1)", container: a)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := of("", "a")
			p.Spec.SecurityContext, p.Spec.Containers[0].SecurityContext = c.pod, c.own
			spec, err := ContainerSpec(p, &p.Spec.Containers[0], Setting{Image: container.Image{User: c.image}}, 0)
			if fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if d := cmp.Diff(c.want, spec.Security); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestHashFollowsTheImageAlone(t *testing.T) {
	a := corev1.Container{Name: "c", Image: "app:1"}
	b := a
	b.Env = []corev1.EnvVar{{Name: "X", Value: "1"}}
	c := a
	c.Image = "app:2"
	if Hash(&a) != Hash(&b) || Hash(&a) == Hash(&c) {
		t.Errorf("%s %s %s", Hash(&a), Hash(&b), Hash(&c))
	}
}

package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/container/suite"
	"github.com/troupe-sh/troupe/test/lab"
)

// waitingFor returns when the pod's container waits with a reason.
func waitingFor(t *testing.T, h *lab.Host, name, reason string) *corev1.Pod {
	t.Helper()
	return waitPod(t, h, name, "waits: "+reason, func(p *corev1.Pod) bool {
		all := p.Status.ContainerStatuses
		return len(all) == 1 && all[0].State.Waiting != nil && all[0].State.Waiting.Reason == reason
	})
}

// reasons are those of a pod's events, each once.
func reasons(h *lab.Host, name string) []string {
	out := h.Troupe("get", "events", "--field-selector", "involvedObject.name="+name, "-o", "jsonpath={.items[*].reason}")
	all := strings.Fields(out)
	slices.Sort(all)
	return slices.Compact(all)
}

func push(t *testing.T, r *suite.Registry, repoTag, archive string) {
	t.Helper()
	if err := r.Push(repoTag, lab.ImageOf(t, archive)); err != nil {
		t.Fatal(err)
	}
}

func TestImagesArePulled(t *testing.T) {
	certs := t.TempDir()
	h := startWith(t, lab.Options{Containerd: lab.StartContainerd(t), Flags: []string{"--certs-dir", certs, "--restart-backoff", "1s"}})
	plain, secure := h.StartRegistry(certs, "plain.test", "http"), h.StartRegistry(certs, "secure.test", "https")

	t.Run("ten pods, one pull", func(t *testing.T) {
		h := h.For(t)
		push(t, plain, "app:1", "troupe-test")
		h.TroupeIn(rc("ten", 10, "plain.test/app:1"), "apply", "-f", "-")
		all := waitReady(t, h, "ten", 10)
		if n := plain.Asked("HEAD", "/manifests/1"); n != 1 {
			t.Errorf("the registry was asked %d times what the name stands for", n)
		}
		layers, err := lab.ImageOf(t, "troupe-test").Layers()
		if err != nil {
			t.Fatal(err)
		}
		if n := plain.Asked("GET", "/blobs/"); n != len(layers)+1 {
			t.Errorf("%d blobs were fetched, the image has %d layers and a configuration", n, len(layers))
		}
		if id := all[0].Status.ContainerStatuses[0].ImageID; !strings.HasPrefix(id, "plain.test/app@sha256:") {
			t.Errorf("the status shows the image as %s", id)
		}
		h.Troupe("delete", "rc", "ten")
	})

	t.Run("a tag that comes later", func(t *testing.T) {
		h := h.For(t)
		h.TroupeIn(pod("late", "plain.test/app:late", nil), "apply", "-f", "-")
		waitingFor(t, h, "late", "ErrImagePull")
		p := waitingFor(t, h, "late", "ImagePullBackOff")
		if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.HasPrefix(m, `Back-off pulling image "plain.test/app:late": ErrImagePull: `) || !strings.Contains(m, "not found") {
			t.Errorf("it says %q", m)
		}
		push(t, plain, "app:late", "troupe-test")
		waitPod(t, h, "late", "runs", isReady)
		got := reasons(h, "late")
		for _, want := range []string{"BackOff", "Created", "Failed", "Pulled", "Pulling", "Scheduled", "Started"} {
			if !slices.Contains(got, want) {
				t.Errorf("no event %s among %v", want, got)
			}
		}
		h.Troupe("delete", "pod", "late", "--now")
	})

	t.Run("a secret, wrong and then right, over TLS", func(t *testing.T) {
		h := h.For(t)
		push(t, secure, "team/app:1", "troupe-test")
		secure.Require("team/app", container.Auth{Username: "alice", Password: "right"})
		h.Troupe("create", "secret", "docker-registry", "login", "--docker-server=secure.test", "--docker-username=alice", "--docker-password=wrong")
		h.TroupeIn(pod("private", "secure.test/team/app:1", nil, "imagePullSecrets: [{name: login}]"), "apply", "-f", "-")
		p := waitingFor(t, h, "private", "ImagePullBackOff")
		if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "denied") {
			t.Errorf("it says %q", m)
		}
		h.Troupe("delete", "secret", "login")
		h.Troupe("create", "secret", "docker-registry", "login", "--docker-server=secure.test", "--docker-username=alice", "--docker-password=right")
		waitPod(t, h, "private", "runs", isReady)
		h.TroupeIn(pod("stranger", "secure.test/team/app:1", nil), "apply", "-f", "-")
		waitingFor(t, h, "stranger", "ImagePullBackOff") // it is here, and not for this one
		h.Troupe("delete", "pod", "private", "stranger", "--now")
	})

	t.Run("what is no name", func(t *testing.T) {
		h := h.For(t)
		h.TroupeIn(pod("misnamed", "Not/A/Name", nil), "apply", "-f", "-")
		waitingFor(t, h, "misnamed", "InvalidImageName")
		h.Troupe("delete", "pod", "misnamed", "--now")
	})

	t.Run("a pull outlives the agent", func(t *testing.T) {
		h := h.For(t)
		push(t, plain, "other:1", "busybox")
		release := plain.Hold()
		defer release()
		h.TroupeIn(pod("held", "plain.test/other:1", []string{"sleep", "1000"}), "apply", "-f", "-")
		lab.Eventually(t, patience, "the pull is under way", func() error {
			if plain.Asked("GET", "/v2/other/blobs/") == 0 {
				return fmt.Errorf("no blob is asked for")
			}
			return nil
		})
		h.Kill()
		h.Up()
		release()
		waitPod(t, h, "held", "runs", isReady)
		h.Troupe("delete", "pod", "held", "--now")
	})

	t.Run("by hand", func(t *testing.T) {
		h := h.For(t)
		if _, said, code := h.TryTroupe("", "image", "pull", "secure.test/team/app:1"); code != 1 || !strings.Contains(said, "denied") {
			t.Errorf("without a password: code %d, %s", code, said)
		}
		out, said, code := h.TryTroupe("right\n", "image", "pull", "secure.test/team/app:1", "-u", "alice", "--password-stdin")
		if code != 0 || !strings.HasPrefix(out, "pulled secure.test/team/app:1 (sha256:") || !strings.HasPrefix(said, "pulling secure.test/team/app:1\n") {
			t.Errorf("code %d, %s%s", code, out, said)
		}
		if out := h.Troupe("image", "ls"); !strings.Contains(out, "secure.test/team/app:1") {
			t.Errorf("not listed:\n%s", out)
		}
	})
}

func TestAFullDiskCostsImagesThatNobodyUses(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	// Full at once, so that everything goes that may.
	if err := os.WriteFile(config, []byte("imageGC: {highPercent: 1, lowPercent: 0, minAge: 1s}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := startWith(t, lab.Options{Containerd: lab.StartContainerd(t), Flags: []string{"--config", config}}, "troupe-test")
	h.TroupeIn(pod("user", "troupe-test:latest", nil), "apply", "-f", "-")
	waitPod(t, h, "user", "runs", isReady)
	h.LoadImages("busybox")
	lab.Eventually(t, patience, "the image that nobody uses is gone", func() error {
		h.LoadImages("redis") // each look is made when an image comes
		if out := h.Troupe("image", "ls"); strings.Contains(out, "library/busybox:latest") {
			return fmt.Errorf("there are\n%s", out)
		}
		return nil
	})
	if out := h.Troupe("image", "ls"); !strings.Contains(out, "troupe-test") {
		t.Errorf("the image in use is gone:\n%s", out)
	}
}

package nodetest_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/actors/controltest"
	"github.com/troupe-sh/troupe/actors/nodetest"
	"github.com/troupe-sh/troupe/api"
)

func configMap(namespace, name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: data}
}

func lives(n string) map[string]string { return map[string]string{"lives": n} }

// setLives changes the ConfigMap game, or makes it.
func setLives(w *nodetest.World, data map[string]string) {
	w.T.Helper()
	key := api.Key{Resource: api.ConfigMaps, Namespace: "default", Name: "game"}
	if w.Get(key) == nil {
		w.Create(configMap("default", "game", data))
	} else {
		controltest.Update(w.World, key, func(m *corev1.ConfigMap) { m.Data = data })
	}
	w.Advance(0)
}

func envOfGame(p *corev1.Pod) {
	p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "LIVES", ValueFrom: &corev1.EnvVarSource{
		ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "game"}, Key: "lives"},
	}}}
}

func volumeOfGame(p *corev1.Pod) {
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "game"}},
	}})
	if len(p.Spec.Volumes) == 1 {
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/game"}}
	}
}

func volumeOfLabels(p *corev1.Pod) {
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "d", VolumeSource: corev1.VolumeSource{
		DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.labels"}},
		}},
	}})
}

// message is that of the last event with the reason about a pod.
func message(w *nodetest.World, pod, reason string) string {
	said := ""
	for _, e := range controltest.List[*corev1.Event](w.World, "events", "default") {
		if e.InvolvedObject.Name == pod && e.Reason == reason {
			said = e.Message
		}
	}
	return said
}

func env(w *nodetest.World, p *corev1.Pod, attempt uint32) []string {
	spec, _ := w.Runtime.Spec(id(p, attempt))
	return spec.Env
}

func TestAnEnvironmentWaitsForWhatItIsMadeOf(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web", envOfGame))
		w.Want("web", "Pending, c#0 CreateContainerConfigError")
		if got := w.Pod("web").Status.ContainerStatuses[0].State.Waiting.Message; got != `configmap "game" not found` {
			t.Errorf("it waits for %s", got)
		}
		if got := message(w, "web", "Failed"); got != `Error: configmap "game" not found` {
			t.Errorf("event: %s", got)
		}
		setLives(w, map[string]string{"other": "1"})
		w.Want("web", "Pending, c#0 CreateContainerConfigError")
		if got := w.Pod("web").Status.ContainerStatuses[0].State.Waiting.Message; got != "couldn't find key lives in ConfigMap default/game" {
			t.Errorf("it waits for %s", got)
		}
		setLives(w, lives("3"))
		w.Want("web", "Running, c#0 running ready")
		if got := env(w, p, 0); !slices.Equal(got, []string{"HOSTNAME=web", "LIVES=3"}) {
			t.Errorf("environment %q", got)
		}
		// What runs keeps it; what is made later has the new one.
		setLives(w, lives("4"))
		w.Advance(time.Minute)
		w.Want("web", "Running, c#0 running ready")
		w.Runtime.Exit(id(p, 0), 1)
		w.Advance(0)
		w.Want("web", "Running, c#1 running ready (1 Error)")
		if got := env(w, p, 1); !slices.Equal(got, []string{"HOSTNAME=web", "LIVES=4"}) {
			t.Errorf("environment %q", got)
		}
		if n := w.Volumes.Setups(); n != 1 {
			t.Errorf("volumes that do not follow it were set up %d times", n)
		}
	})
}

func TestAnEnvironmentThatCannotBeMadeIsTriedAgain(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		w.Make(nodetest.Pod("web", envOfGame))
		w.Advance(time.Minute)
		w.Want("web", "Pending, c#0 CreateContainerConfigError")
		if got := w.Events("web"); got != "Failed=3" { // after 10 s and after 20 more
			t.Errorf("events: %s", got)
		}
		w.DeletePod("web", 0)
		w.Want("web", "gone")
		w.Nothing()
	})
}

func TestFilesFollowWhatTheyAreMadeOf(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		p := w.Make(nodetest.Pod("web", volumeOfGame, volumeOfLabels))
		w.Want("web", "Pending, c#0 ContainerCreating")
		if got := message(w, "web", "FailedMount"); got != `MountVolume.SetUp failed for volume "v" : configmap "game" not found` {
			t.Errorf("event: %s", got)
		}
		w.Advance(10 * time.Second)
		setLives(w, lives("3")) // which the next retry is far from
		w.Want("web", "Running, c#0 running ready")
		file := func(path, want string) {
			t.Helper()
			if got := w.Volumes.File(p.UID, "v", path); got != want {
				t.Errorf("%s says %q, want %q", path, got, want)
			}
		}
		file("lives", "3")
		setLives(w, map[string]string{"lives": "4", "color": "purple"})
		file("lives", "4")
		file("color", "purple")
		w.UpdatePod("web", func(p *corev1.Pod) { p.Labels = map[string]string{"tier": "front"} })
		if got := w.Volumes.File(p.UID, "d", "labels"); got != `tier="front"` {
			t.Errorf("labels: %q", got)
		}
		setups := w.Volumes.Setups()
		w.Create(configMap("default", "other", lives("9")))
		w.Create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}})
		w.Create(configMap("ns", "game", lives("9")))
		w.UpdatePod("web", func(p *corev1.Pod) { p.Finalizers = []string{"x/y"} })
		if n := w.Volumes.Setups() - setups; n != 0 {
			t.Errorf("set up %d times for what does not concern it", n)
		}
		w.Want("web", "Running, c#0 running ready")
	})
}

// TestAnUpdateThatFailsIsTriedAgain: what was there stays until then.
func TestAnUpdateThatFailsIsTriedAgain(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		setLives(w, lives("3"))
		p := w.Make(nodetest.Pod("web", volumeOfGame))
		w.Volumes.Fail(1)
		setLives(w, lives("4"))
		if got := w.Volumes.File(p.UID, "v", "lives"); got != "3" {
			t.Errorf("it says %q", got)
		}
		w.Advance(time.Second)
		if got := w.Volumes.File(p.UID, "v", "lives"); got != "4" {
			t.Errorf("after a retry it says %q", got)
		}
		w.Delete(api.Key{Resource: api.ConfigMaps, Namespace: "default", Name: "game"})
		w.Advance(time.Minute)
		w.Want("web", "Running, c#0 running ready")
		if got := w.Volumes.File(p.UID, "v", "lives"); got != "4" {
			t.Errorf("without its ConfigMap it says %q", got)
		}
		setLives(w, lives("5"))
		if got := w.Volumes.File(p.UID, "v", "lives"); got != "5" {
			t.Errorf("with a new one it says %q", got)
		}
	})
}

func TestChangesWhileSomethingIsDownAreSeen(t *testing.T) {
	nodetest.Run(t, func(w *nodetest.World) {
		setLives(w, lives("3"))
		p := w.Make(nodetest.Pod("web", envOfGame, volumeOfGame))
		want := func(what, value string, attempt uint32) {
			t.Helper()
			w.Advance(2 * time.Second)
			if got := w.Volumes.File(p.UID, "v", "lives"); got != value {
				t.Errorf("%s: the file says %q, want %q", what, got, value)
			}
			w.Runtime.Exit(id(p, attempt), 1)
			w.Advance(10 * time.Minute)
			if got := env(w, p, attempt+1); !slices.Contains(got, "LIVES="+value) {
				t.Errorf("%s: environment %q, want %s", what, got, value)
			}
		}
		want("at first", "3", 0)
		w.StopAgent()
		setLives(w, lives("4"))
		w.StartAgent()
		want("agent", "4", 1)
		for i, path := range []string{"node/volumes", "node/pods", nodetest.Path(p), nodetest.Path(p) + "/c"} {
			value := string(rune('5' + i))
			w.Crash(path)
			setLives(w, lives(value))
			want(path, value, uint32(2+i))
		}
	})
}

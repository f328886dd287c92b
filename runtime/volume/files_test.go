package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/troupe-sh/troupe/api"
)

func as[T any](v T) *T { return &v }

func named(name string) corev1.LocalObjectReference {
	return corev1.LocalObjectReference{Name: name}
}

func configMapVolume(name, of string, mode int32, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: named(of), DefaultMode: &mode, Items: items,
	}}}
}

func secretVolume(name, of string, mode int32, items ...corev1.KeyToPath) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: of, DefaultMode: &mode, Items: items}}}
}

func field(path, field string) corev1.DownwardAPIVolumeFile {
	return corev1.DownwardAPIVolumeFile{Path: path, FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field}}
}

// these are sources: name, key, value, and so on.
func configMaps(s ...string) api.Sources {
	all := api.Sources{ConfigMaps: map[string]*corev1.ConfigMap{}, Secrets: map[string]*corev1.Secret{}}
	for c := range slices.Chunk(s, 3) {
		if all.ConfigMaps[c[0]] == nil {
			all.ConfigMaps[c[0]] = &corev1.ConfigMap{Data: map[string]string{}}
		}
		all.ConfigMaps[c[0]].Data[c[1]] = c[2]
	}
	return all
}

func secrets(s ...string) api.Sources {
	all := configMaps(s...)
	for name, m := range all.ConfigMaps {
		all.Secrets[name] = &corev1.Secret{Data: map[string][]byte{}}
		for key, value := range m.Data {
			all.Secrets[name].Data[key] = []byte(value)
		}
	}
	all.ConfigMaps = nil
	return all
}

// put sets up p and returns where its volume is.
func put(t *testing.T, v *Volumes, p *corev1.Pod, s api.Sources) string {
	t.Helper()
	if _, err := v.Setup(t.Context(), p, s); err != nil {
		t.Fatal(err)
	}
	vol := p.Spec.Volumes[0]
	return filepath.Join(v.dir, string(p.UID), "volumes", plugin(vol), vol.Name)
}

// tree is what people see of a volume: paths with modes and what the files say.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	var walk func(at string)
	walk = func(at string) {
		entries, err := os.ReadDir(filepath.Join(dir, at))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.Join(at, e.Name())
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			st, err := os.Stat(filepath.Join(dir, path))
			if err != nil {
				t.Fatal(err)
			}
			if st.IsDir() {
				walk(path)
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, path))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%s %04o %s", path, st.Mode().Perm(), b))
		}
	}
	walk("")
	return strings.Join(out, ", ")
}

func want(t *testing.T, dir, files string) {
	t.Helper()
	if got := tree(t, dir); got != files {
		t.Errorf("%s has: %s\nwant: %s", dir, got, files)
	}
}

// version is the directory that the volume's files stand in by now.
func version(t *testing.T, dir string) string {
	t.Helper()
	to, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func inMemory(t *testing.T, dir string) bool {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return fs.Type == unix.TMPFS_MAGIC
}

func TestAConfigMapsFilesFollowIt(t *testing.T) {
	v, _ := volumes(t)
	p := aPod([]corev1.Volume{configMapVolume("v", "game", 0o644)}, corev1.VolumeMount{Name: "v", MountPath: "/etc/game"})
	s := configMaps("game", "lives", "3", "game", "color", "purple")
	s.ConfigMaps["game"].BinaryData = map[string][]byte{"icon": {0, 1}}
	mounts, err := v.Setup(t.Context(), p, s)
	if err != nil {
		t.Fatal(err)
	}
	dir := mounts["c"][0].HostPath
	if !mounts["c"][0].ReadOnly || filepath.Base(filepath.Dir(dir)) != "kubernetes.io~configmap" {
		t.Errorf("mounts %+v", mounts)
	}
	want(t, dir, "color 0644 purple, icon 0644 \x00\x01, lives 0644 3")
	if link, err := os.Readlink(filepath.Join(dir, "lives")); err != nil || link != "..data/lives" {
		t.Errorf("lives leads to %s, %v", link, err)
	}
	was := version(t, dir)
	put(t, v, p, s)
	if version(t, dir) != was {
		t.Error("nothing has changed, and it was written anew")
	}
	put(t, v, p, configMaps("game", "lives", "4", "game", "new", "1"))
	want(t, dir, "lives 0644 4, new 0644 1")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 || version(t, dir) == was {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestWhichFilesAndWithWhichModes(t *testing.T) {
	v, _ := volumes(t)
	p := aPod([]corev1.Volume{configMapVolume("v", "game", 0o400,
		corev1.KeyToPath{Key: "lives", Path: "conf/lives.txt"}, corev1.KeyToPath{Key: "color", Path: "color", Mode: as[int32](0o511)})})
	s := configMaps("game", "lives", "3", "game", "color", "purple", "game", "other", "x")
	dir := put(t, v, p, s)
	want(t, dir, "color 0511 purple, conf/lives.txt 0400 3")
	if inMemory(t, dir) {
		t.Error("it takes memory")
	}
	delete(s.ConfigMaps["game"].Data, "color")
	if _, err := v.Setup(t.Context(), p, s); err == nil || err.Error() != `MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: color` {
		t.Errorf("without a key: %v", err)
	}
	want(t, dir, "color 0511 purple, conf/lives.txt 0400 3") // as before
	p.Spec.Volumes[0].ConfigMap.Optional = as(true)
	put(t, v, p, s)
	want(t, dir, "conf/lives.txt 0400 3")
}

func TestASecretStandsInMemoryAlone(t *testing.T) {
	v, root := volumes(t)
	p := aPod([]corev1.Volume{secretVolume("v", "key", 0o400)}, corev1.VolumeMount{Name: "v", MountPath: "/key"})
	s := secrets("key", "password", "very secret")
	dir := put(t, v, p, s)
	want(t, dir, "password 0400 very secret")
	if !inMemory(t, dir) {
		t.Error("it stands on disk")
	}
	put(t, v, p, secrets("key", "password", "more secret"))
	want(t, dir, "password 0400 more secret")

	// What is on disk is what is left when the machine is switched off.
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("on disk: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, v, p, s)
	want(t, dir, "password 0400 very secret")
	if !inMemory(t, dir) {
		t.Error("after a reboot it stands on disk")
	}
	if err := v.Teardown(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(v.dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWhatAPodSaysOfItselfInFiles(t *testing.T) {
	v, _ := volumes(t)
	v.machine.Allocatable = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("8"), corev1.ResourceMemory: resource.MustParse("16Gi")}
	bounds := func(path, resourceName, divisor string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: path, ResourceFieldRef: &corev1.ResourceFieldSelector{
			ContainerName: "c", Resource: resourceName, Divisor: resource.MustParse(divisor),
		}}
	}
	name := field("name", "metadata.name")
	name.Mode = as[int32](0o444)
	p := aPod([]corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		DefaultMode: as[int32](0o644),
		Items: []corev1.DownwardAPIVolumeFile{
			field("labels", "metadata.labels"), field("one/annotation", "metadata.annotations['a']"), name,
			bounds("cpu", "requests.cpu", "1m"), bounds("memory", "limits.memory", "1Gi"),
		},
	}}}})
	p.Labels, p.Annotations = map[string]string{"tier": "front", "app": "web"}, map[string]string{"a": "1"}
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")}
	dir := put(t, v, p, api.Sources{})
	want(t, dir, `cpu 0644 250, labels 0644 app="web"`+"\n"+`tier="front", memory 0644 16, name 0444 p, one/annotation 0644 1`)
	if !inMemory(t, dir) {
		t.Error("it stands on disk")
	}
	p.Labels, p.Annotations = map[string]string{"app": "other"}, nil
	put(t, v, p, api.Sources{})
	want(t, dir, `cpu 0644 250, labels 0644 app="other", memory 0644 16, name 0444 p, one/annotation 0644 `)
}

func projected(sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: as[int32](0o440), Sources: sources}}}
}

func TestProjected(t *testing.T) {
	v, _ := volumes(t)
	p := aPod([]corev1.Volume{projected(
		corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("game"), Items: []corev1.KeyToPath{{Key: "lives", Path: "game/lives"}}}},
		corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: named("key"), Items: []corev1.KeyToPath{{Key: "password", Path: "password", Mode: as[int32](0o400)}}}},
		corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{field("name", "metadata.name")}}},
		corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("none"), Optional: as(true)}},
	)})
	s := configMaps("game", "lives", "3")
	s.Secrets = secrets("key", "password", "secret").Secrets
	dir := put(t, v, p, s)
	want(t, dir, "game/lives 0440 3, name 0440 p, password 0400 secret")
	if !inMemory(t, dir) {
		t.Error("a Secret's data stands on disk")
	}
	s.ConfigMaps["none"] = &corev1.ConfigMap{Data: map[string]string{"appeared": "1"}}
	put(t, v, p, s)
	want(t, dir, "appeared 0440 1, game/lives 0440 3, name 0440 p, password 0400 secret")
}

func TestWhatFilesLack(t *testing.T) {
	v, root := volumes(t)
	token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}
	for want, vol := range map[string]corev1.Volume{
		`configmap "none" not found`:                     configMapVolume("v", "none", 0o644),
		`secret "none" not found`:                        secretVolume("v", "none", 0o644),
		"references non-existent secret key: b":          secretVolume("v", "key", 0o644, corev1.KeyToPath{Key: "b", Path: "b"}),
		"this kind of projected source is not supported": projected(token),
		`[configmap "one" not found, secret "two" not found]`: projected(
			corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: named("one")}},
			corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: named("two")}}),
	} {
		_, err := v.Setup(t.Context(), aPod([]corev1.Volume{vol}), secrets("key", "a", "1"))
		if err == nil || !strings.HasPrefix(err.Error(), `MountVolume.SetUp failed for volume "v" : `+want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if made, err := os.ReadDir(root); err != nil || len(made) > 0 {
		t.Errorf("made: %v, %v", made, err)
	}
	p := aPod([]corev1.Volume{configMapVolume("v", "none", 0o644), secretVolume("w", "none", 0o644), configMapVolume("x", "game", 0o644)})
	_, err := v.Setup(t.Context(), p, configMaps("game", "lives", "3"))
	if err == nil || err.Error() != "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found\nMountVolume.SetUp failed for volume \"w\" : secret \"none\" not found" {
		t.Errorf("of two volumes: %v", err)
	}
	want(t, filepath.Join(v.dir, "u1/volumes/kubernetes.io~configmap/x"), "lives 0644 3")
}

func TestFilesOfAGroup(t *testing.T) {
	v, _ := volumes(t)
	p := aPod([]corev1.Volume{secretVolume("v", "key", 0o400)})
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: as[int64](4711)}
	for _, value := range []string{"one", "two"} {
		dir := put(t, v, p, secrets("key", "a", value))
		want(t, dir, "a 0440 "+value)
		for _, path := range []string{dir, filepath.Join(dir, "a"), filepath.Join(dir, "..data/")} {
			if _, st := mode(t, path); st.Gid != 4711 {
				t.Errorf("%s is of group %d", path, st.Gid)
			}
		}
		if m, _ := mode(t, dir); m != os.ModeDir|os.ModeSetgid|0o777 {
			t.Errorf("%s: %v", dir, m)
		}
	}
}

func TestOneFileOfAVolume(t *testing.T) {
	v, _ := volumes(t)
	p := aPod([]corev1.Volume{configMapVolume("v", "game", 0o644)}, corev1.VolumeMount{Name: "v", MountPath: "/etc/lives", SubPath: "lives"})
	at := func(s api.Sources) string {
		t.Helper()
		mounts, err := v.Setup(t.Context(), p, s)
		if err != nil {
			t.Fatal(err)
		}
		if !mounts["c"][0].ReadOnly {
			t.Error("it can be written to")
		}
		return mounts["c"][0].HostPath
	}
	read := func(path, want string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", path, b, err, want)
		}
	}
	path := at(configMaps("game", "other", "x"))
	if in, err := os.ReadDir(path); err != nil || len(in) > 0 {
		t.Errorf("before there is such a file: %v, %v", in, err)
	}
	path = at(configMaps("game", "lives", "3"))
	read(path, "3")
	// A container has it mounted: it keeps what it has, the next one sees the new.
	inside := filepath.Join(v.dir, "inside")
	if err := errors.Join(os.WriteFile(inside, nil, 0o600), unix.Mount(path, inside, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	path = at(configMaps("game", "lives", "4"))
	read(path, "4")
	read(inside, "3")
	path = at(configMaps("game", "other", "x"))
	if in, err := os.ReadDir(path); err != nil || len(in) > 0 {
		t.Errorf("when the file is gone: %v, %v", in, err)
	}
	want(t, filepath.Join(v.dir, "u1/volumes/kubernetes.io~configmap/v"), "other 0644 x")
}

func TestAVolumeThatOthersAreMountedIn(t *testing.T) {
	v, _ := volumes(t)
	p := aPod([]corev1.Volume{configMapVolume("v", "game", 0o644), empty("e", corev1.EmptyDirVolumeSource{})},
		corev1.VolumeMount{Name: "v", MountPath: "/etc/game"}, corev1.VolumeMount{Name: "e", MountPath: "/etc/game/scores"})
	dir := put(t, v, p, configMaps("game", "lives", "3"))
	put(t, v, p, configMaps("game", "lives", "4"))
	if st, err := os.Stat(filepath.Join(dir, "scores")); err != nil || !st.IsDir() {
		t.Errorf("where the other is mounted: %v", err)
	}
	want(t, dir, "lives 0644 4")
}

func TestWhatADeadWriterLeftIsNoHindrance(t *testing.T) {
	v, _ := volumes(t)
	p := aPod([]corev1.Volume{secretVolume("v", "key", 0o400)})
	dir := put(t, v, p, secrets("key", "a", "1"))
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "..2026_01_01_12_00_00.1"), 0o755),
		os.WriteFile(filepath.Join(dir, "..2026_01_01_12_00_00.1/a"), []byte("half"), 0o600),
		os.Symlink("..2026_01_01_12_00_00.1", filepath.Join(dir, "..data_tmp")),
	); err != nil {
		t.Fatal(err)
	}
	put(t, v, p, secrets("key", "a", "2"))
	want(t, dir, "a 0400 2")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

package volume

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// volumes under a directory of the test's own, with nothing mounted there when it ends.
func volumes(t *testing.T) (*Volumes, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("volumes are mounted and owned: this test needs root")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := remove(filepath.Join(dir, "pods")); err != nil {
			t.Error(err)
		}
	})
	return New(dir, pod.Machine{Name: "n1", Addrs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} }}), dir
}

func aPod(vols []corev1.Volume, mounts ...corev1.VolumeMount) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u1"},
		Spec: corev1.PodSpec{
			Volumes:    vols,
			Containers: []corev1.Container{{Name: "c", VolumeMounts: mounts}},
		},
	}
}

func empty(name string, e corev1.EmptyDirVolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &e}}
}

func host(name, path string, kind corev1.HostPathType) corev1.Volume {
	h := corev1.HostPathVolumeSource{Path: path}
	if kind != corev1.HostPathUnset {
		h.Type = &kind
	}
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &h}}
}

func setup(t *testing.T, v *Volumes, p *corev1.Pod) []container.Mount {
	t.Helper()
	m, err := v.Setup(t.Context(), p, api.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	return m["c"]
}

func mode(t *testing.T, path string) (os.FileMode, unix.Stat_t) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var raw unix.Stat_t
	if err := unix.Stat(path, &raw); err != nil {
		t.Fatal(err)
	}
	return st.Mode(), raw
}

func TestEmptyDir(t *testing.T) {
	v, dir := volumes(t)
	limit := resource.MustParse("1Mi")
	p := aPod([]corev1.Volume{
		empty("disk", corev1.EmptyDirVolumeSource{}),
		empty("memory", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}),
	}, corev1.VolumeMount{Name: "disk", MountPath: "/disk"}, corev1.VolumeMount{Name: "memory", MountPath: "memory", ReadOnly: true})
	group := int64(4711)
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	p.Spec.InitContainers = []corev1.Container{{Name: "i", VolumeMounts: p.Spec.Containers[0].VolumeMounts[:1]}}
	mounts, err := v.Setup(t.Context(), p, api.Sources{})
	if err != nil {
		t.Fatal(err)
	}
	disk, memory := filepath.Join(dir, "pods/u1/volumes/kubernetes.io~empty-dir/disk"), filepath.Join(dir, "pods/u1/volumes/kubernetes.io~empty-dir/memory")
	want := map[string][]container.Mount{
		"c": {{HostPath: disk, ContainerPath: "/disk"}, {HostPath: memory, ContainerPath: "/memory", ReadOnly: true}},
		"i": {{HostPath: disk, ContainerPath: "/disk"}},
	}
	if fmt.Sprint(mounts) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", mounts, want)
	}
	for _, path := range []string{disk, memory} {
		if m, st := mode(t, path); m != os.ModeDir|os.ModeSetgid|0o777 || st.Gid != 4711 {
			t.Errorf("%s: %v of group %d", path, m, st.Gid)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(memory, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Blocks*uint64(fs.Bsize) != 1<<20 {
		t.Errorf("memory: %+v, %v", fs, err)
	}

	// What the containers did with it stays: a database's rights and data.
	if err := os.Chmod(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{disk, memory} {
		if err := os.WriteFile(filepath.Join(path, "data"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	setup(t, v, p)
	if m, _ := mode(t, disk); m.Perm() != 0o700 {
		t.Errorf("rights given anew: %v", m)
	}
	for _, path := range []string{disk, memory} {
		if _, err := os.Stat(filepath.Join(path, "data")); err != nil {
			t.Error(err)
		}
	}

	// After a reboot memory is empty, with its rights.
	if err := unix.Unmount(memory, 0); err != nil {
		t.Fatal(err)
	}
	setup(t, v, p)
	if m, _ := mode(t, memory); m != os.ModeDir|os.ModeSetgid|0o777 {
		t.Errorf("after a reboot: %v", m)
	}

	if uids, err := v.Pods(t.Context()); err != nil || fmt.Sprint(uids) != "[u1]" {
		t.Errorf("Pods: %v, %v", uids, err)
	}
	f, err := os.Open(filepath.Join(memory)) // busy
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		if err := v.Teardown(t.Context(), "u1"); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "pods")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if uids, err := v.Pods(t.Context()); err != nil || len(uids) > 0 {
		t.Errorf("Pods: %v, %v", uids, err)
	}
}

func TestTeardownLeavesWhatIsOfOthers(t *testing.T) {
	v, dir := volumes(t)
	setup(t, v, aPod([]corev1.Volume{empty("d", corev1.EmptyDirVolumeSource{})}))
	hosts := filepath.Join(dir, "pods/u1/etc-hosts")
	if err := os.WriteFile(hosts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.Teardown(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(hosts); err != nil {
		t.Error(err)
	}
	if uids, err := v.Pods(t.Context()); err != nil || len(uids) > 0 {
		t.Errorf("Pods: %v, %v", uids, err)
	}
	for _, bad := range []string{"", ".", "..", "../x"} {
		if err := v.Teardown(t.Context(), types.UID(bad)); err == nil {
			t.Errorf("Teardown of %q", bad)
		}
	}
}

func TestTmpfsSize(t *testing.T) {
	p := aPod(nil)
	limit, memory := resource.MustParse("2Mi"), resource.MustParse("1Mi")
	if got := tmpfsOptions(p, &corev1.EmptyDirVolumeSource{}); got != "" {
		t.Errorf("no limit: %s", got)
	}
	p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: memory}
	if got := tmpfsOptions(p, &corev1.EmptyDirVolumeSource{SizeLimit: &limit}); got != "size=1048576" {
		t.Errorf("the pod's limit: %s", got)
	}
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{})
	if got := tmpfsOptions(p, &corev1.EmptyDirVolumeSource{SizeLimit: &limit}); got != "size=2097152" {
		t.Errorf("its own limit: %s", got)
	}
}

func TestHostPath(t *testing.T) {
	v, dir := volumes(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Mkdir(at("dir"), 0o755), os.WriteFile(at("file"), nil, 0o600), unix.Mknod(at("block"), unix.S_IFBLK, 0)); err != nil {
		t.Fatal(err)
	}
	short, err := os.MkdirTemp("", "s") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	socket := filepath.Join(short, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		path string
		kind corev1.HostPathType
		want string
	}{
		{at("dir"), corev1.HostPathDirectory, ""},
		{at("file"), corev1.HostPathDirectory, "is not a directory"},
		{at("none"), corev1.HostPathDirectory, "is not a directory"},
		{at("made/by/type"), corev1.HostPathDirectoryOrCreate, ""},
		{at("file"), corev1.HostPathDirectoryOrCreate, "is not a directory"},
		{at("made/by/none"), corev1.HostPathUnset, ""},
		{at("file"), corev1.HostPathFile, ""},
		{at("none"), corev1.HostPathFile, "is not a file"},
		{at("dir"), corev1.HostPathFile, "is not a file"},
		{at("newfile"), corev1.HostPathFileOrCreate, ""},
		{at("no/dir/file"), corev1.HostPathFileOrCreate, "no such file or directory: FileOrCreate does not make the directory"},
		{at("dir"), corev1.HostPathFileOrCreate, "is not a file"},
		{socket, corev1.HostPathSocket, ""},
		{at("file"), corev1.HostPathSocket, "is not a socket file"},
		{"/dev/null", corev1.HostPathCharDev, ""},
		{at("block"), corev1.HostPathCharDev, "is not a character device"},
		{at("block"), corev1.HostPathBlockDev, ""},
		{"/dev/null", corev1.HostPathBlockDev, "is not a block device"},
		{at("file"), "Other", "Other is an invalid volume type"},
	} {
		_, err := v.Setup(t.Context(), aPod([]corev1.Volume{host("h", c.path, c.kind)}), api.Sources{})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasSuffix(err.Error(), c.want)) {
			t.Errorf("%s as %q: %v, want %q", c.path, c.kind, err, c.want)
		}
	}
	if m, _ := mode(t, at("made/by/type")); m != os.ModeDir|0o755 {
		t.Errorf("made directory: %v", m)
	}
	if m, _ := mode(t, at("newfile")); m != 0o644 {
		t.Errorf("made file: %v", m)
	}
	if uids, err := v.Pods(t.Context()); err != nil || len(uids) > 0 {
		t.Errorf("a hostPath leaves nothing here: %v, %v", uids, err)
	}
}

func TestWhatCannotBe(t *testing.T) {
	v, _ := volumes(t)
	bad, enabled := corev1.MountPropagationMode("Some"), corev1.RecursiveReadOnlyEnabled
	disk := []corev1.Volume{empty("d", corev1.EmptyDirVolumeSource{})}
	for want, p := range map[string]*corev1.Pod{
		"this kind of volume is not supported; emptyDir, hostPath,": aPod([]corev1.Volume{{Name: "s", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}}}),
		"no kind of volume is given":                                aPod([]corev1.Volume{{Name: "s"}}),
		`medium "HugePages" is not supported`:                       aPod([]corev1.Volume{empty("h", corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumHugePages})}),
		`mount /x of container "c" of pod ns/p: the pod has`:        aPod(nil, corev1.VolumeMount{Name: "d", MountPath: "/x"}),
		`invalid mountPropagation "Some"`:                           aPod(disk, corev1.VolumeMount{Name: "d", MountPath: "/x", MountPropagation: &bad}),
		"recursiveReadOnly: Enabled is not supported":               aPod(disk, corev1.VolumeMount{Name: "d", MountPath: "/x", RecursiveReadOnly: &enabled}),
		`must not contain ".."`:                                     aPod(disk, corev1.VolumeMount{Name: "d", MountPath: "/x", SubPath: "a/../b"}),
		"must not be an absolute path":                              aPod(disk, corev1.VolumeMount{Name: "d", MountPath: "/x", SubPath: "/a"}),
		"no value for NONE":                                         aPod(disk, corev1.VolumeMount{Name: "d", MountPath: "/x", SubPathExpr: "$(NONE)"}),
	} {
		if _, err := v.Setup(t.Context(), p, api.Sources{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAFileAmongThePodsIsNone(t *testing.T) {
	v, dir := volumes(t)
	setup(t, v, aPod([]corev1.Volume{empty("d", corev1.EmptyDirVolumeSource{})}))
	if err := os.WriteFile(filepath.Join(dir, "pods", "stray"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if uids, err := v.Pods(t.Context()); err != nil || fmt.Sprint(uids) != "[u1]" {
		t.Errorf("Pods: %v, %v", uids, err)
	}
}

func TestASubPathOfWhatThePodSaysOfItself(t *testing.T) {
	v, dir := volumes(t)
	p := aPod([]corev1.Volume{host("h", dir, "")}, corev1.VolumeMount{Name: "h", MountPath: "/x", SubPathExpr: "$(TIER)/$(HOST)/$(IP)"})
	p.Labels = map[string]string{"tier": "front"}
	for name, field := range map[string]string{"TIER": "metadata.labels['tier']", "HOST": "status.hostIP", "IP": "status.podIP"} {
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env, corev1.EnvVar{
			Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: field}},
		})
	}
	if _, err := v.Setup(t.Context(), p, api.Sources{}); err == nil || !strings.Contains(err.Error(), "no value for IP") || !strings.Contains(err.Error(), "no address yet") {
		t.Errorf("before it has an address: %v", err)
	}
	p.Status.PodIP = "10.0.0.7"
	setup(t, v, p)
	if _, err := os.Stat(filepath.Join(dir, "front/192.0.2.1/10.0.0.7")); err != nil {
		t.Error(err)
	}
}

func TestPropagation(t *testing.T) {
	v, _ := volumes(t)
	from, both := corev1.MountPropagationHostToContainer, corev1.MountPropagationBidirectional
	got := setup(t, v, aPod([]corev1.Volume{empty("d", corev1.EmptyDirVolumeSource{})},
		corev1.VolumeMount{Name: "d", MountPath: "/a", MountPropagation: &from}, corev1.VolumeMount{Name: "d", MountPath: "/b", MountPropagation: &both}))
	if got[0].Propagation != "rslave" || got[1].Propagation != "rshared" {
		t.Errorf("got %v", got)
	}
}

func TestSubPath(t *testing.T) {
	v, dir := volumes(t)
	real := filepath.Join(dir, "real")
	if err := errors.Join(os.Mkdir(real, 0o755), os.Chmod(real, os.ModeSetgid|0o775), os.WriteFile(filepath.Join(real, "conf"), []byte("x"), 0o600), os.Symlink("sub", filepath.Join(real, "link"))); err != nil {
		t.Fatal(err)
	}
	p := aPod([]corev1.Volume{host("h", real, "")},
		corev1.VolumeMount{Name: "h", MountPath: "/new", SubPath: "sub/dir"},
		corev1.VolumeMount{Name: "h", MountPath: "/conf", SubPath: "conf"},
		corev1.VolumeMount{Name: "h", MountPath: "/link", SubPath: "link/dir"},
		corev1.VolumeMount{Name: "h", MountPath: "/expr", SubPathExpr: "$(POD)-$(N)"},
		corev1.VolumeMount{Name: "h", MountPath: "/all", SubPath: "./"},
	)
	p.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}},
		{Name: "ONE", Value: "1"},
		{Name: "N", Value: "$(ONE)2"},
	}
	got := setup(t, v, p)
	if err := os.WriteFile(filepath.Join(got[0].HostPath, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(real, "sub/dir/a"), filepath.Join(got[2].HostPath, "a"), filepath.Join(real, "p-12")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(got[1].HostPath); err != nil || string(b) != "x" {
		t.Errorf("file: %q, %v", b, err)
	}
	if got[4].HostPath != real {
		t.Errorf("./ is %s", got[4].HostPath)
	}
	if m, _ := mode(t, filepath.Join(real, "sub/dir")); m != os.ModeDir|os.ModeSetgid|0o775 {
		t.Errorf("made with %v", m)
	}
	before, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(dir, "pods")))
	if err != nil {
		t.Fatal(err)
	}
	setup(t, v, p)
	after, err := mountinfo.GetMounts(mountinfo.PrefixFilter(filepath.Join(dir, "pods")))
	if err != nil || len(after) != len(before) || len(after) != 4 {
		t.Errorf("mounts %d then %d, %v", len(before), len(after), err)
	}
	// Something else stands there now.
	if err := errors.Join(os.Rename(filepath.Join(real, "conf"), filepath.Join(real, "old")), os.WriteFile(filepath.Join(real, "conf"), []byte("new"), 0o600)); err != nil {
		t.Fatal(err)
	}
	got = setup(t, v, p)
	if b, err := os.ReadFile(got[1].HostPath); err != nil || string(b) != "new" {
		t.Errorf("file: %q, %v", b, err)
	}
	if err := v.Teardown(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(real, "conf")); err != nil || string(b) != "new" {
		t.Errorf("the machine's own file: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(real, "sub/dir/a")); err != nil {
		t.Errorf("the machine's own: %v", err)
	}
}

func TestSubPathStaysInside(t *testing.T) {
	v, dir := volumes(t)
	real, secret := filepath.Join(dir, "real"), filepath.Join(dir, "secret")
	if err := errors.Join(os.Mkdir(real, 0o755), os.Mkdir(secret, 0o700), os.Mkdir(filepath.Join(real, "in"), 0o755),
		os.Symlink(secret, filepath.Join(real, "absolute")),
		os.Symlink("../secret", filepath.Join(real, "up")),
		os.Symlink("in", filepath.Join(real, "inner")),
		os.Symlink("../../secret", filepath.Join(real, "in/deep")),
		os.Symlink("loop", filepath.Join(real, "loop")),
		os.Symlink("nowhere", filepath.Join(real, "dangling")),
	); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"absolute", "absolute/new", "up", "up/new/er", "in/deep", "inner/deep/x", "loop", "dangling", "dangling/x"} {
		_, err := v.Setup(t.Context(), aPod([]corev1.Volume{host("h", real, "")}, corev1.VolumeMount{Name: "h", MountPath: "/x", SubPath: sub}), api.Sources{})
		if err == nil || !strings.HasPrefix(err.Error(), `mount /x of container "c" of pod ns/p: subPath "`+sub+`" of volume "h": `) {
			t.Errorf("%s: %v", sub, err)
		}
	}
	if made, err := os.ReadDir(secret); err != nil || len(made) > 0 {
		t.Errorf("made outside: %v, %v", made, err)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) != 2 {
		t.Errorf("made outside: %v, %v", made, err)
	}
}

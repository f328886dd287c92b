// Package volume sets up what pods mount: emptyDir, on disk and in memory,
// hostPath, and files made of ConfigMaps, Secrets and what the pod says of
// itself, which Kubernetes' AtomicWriter writes and replaces. Everything it
// makes stands under DATA/pods/UID, so that it is found again by whoever comes
// after a crash:
//
//	volumes/PLUGIN/NAME                    the volume: kubernetes.io~empty-dir, kubernetes.io~secret …
//	plugins/kubernetes.io~empty-dir/NAME   a file "ready", once it was given its rights
//	volume-subpaths/NAME/CONTAINER/N       what the Nth mount's subPath leads to, bound there
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// ErrUnsupported is a kind of volume, or a wish of one, that Troupe does not
// know yet.
var ErrUnsupported = errors.New("not supported")

// Volumes of the pods of a machine.
type Volumes struct {
	dir     string // DATA/pods
	machine pod.Machine
}

// New keeps volumes of pods on machine m under dataDir.
func New(dataDir string, m pod.Machine) *Volumes {
	return &Volumes{dir: filepath.Join(dataDir, "pods"), machine: m}
}

const (
	emptyDirPlugin = "kubernetes.io~empty-dir"
	volumesDir     = "volumes"
	pluginsDir     = "plugins"
	subpathsDir    = "volume-subpaths"
)

// ours are the directories of a pod that this package makes.
var ours = []string{volumesDir, pluginsDir, subpathsDir}

// Setup makes what p's volumes need, where it is not there yet, and returns
// the mounts of each container by its name. What a container has changed of
// its volumes stays; files that are made of s become what s now says. The error
// joins those of all volumes: one does not keep another from being set up.
func (v *Volumes) Setup(ctx context.Context, p *corev1.Pod, s api.Sources) (map[string][]container.Mount, error) {
	paths := map[string]string{}
	var errs []error
	for _, vol := range p.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path, err := v.setup(p, vol, s)
		if err != nil {
			errs = append(errs, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", vol.Name, err))
		}
		paths[vol.Name] = path
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	mounts := map[string][]container.Mount{}
	for _, c := range containers(p) {
		for i, m := range c.VolumeMounts {
			mount, err := v.mount(p, c, i, paths, s)
			if err != nil {
				return nil, fmt.Errorf("mount %s of container %q of pod %s/%s: %w", m.MountPath, c.Name, p.Namespace, p.Name, err)
			}
			mounts[c.Name] = append(mounts[c.Name], mount)
		}
	}
	return mounts, nil
}

func containers(p *corev1.Pod) []corev1.Container {
	all := slices.Concat(p.Spec.InitContainers, p.Spec.Containers)
	for _, e := range p.Spec.EphemeralContainers {
		all = append(all, corev1.Container(e.EphemeralContainerCommon))
	}
	return all
}

// setup makes one volume and says where it is.
func (v *Volumes) setup(p *corev1.Pod, vol corev1.Volume, s api.Sources) (string, error) {
	switch {
	case vol.EmptyDir != nil:
		path := filepath.Join(v.dir, string(p.UID), volumesDir, emptyDirPlugin, vol.Name)
		return path, v.emptyDir(p, vol, path)
	case vol.HostPath != nil:
		return vol.HostPath.Path, hostPath(vol.HostPath)
	case vol.VolumeSource == corev1.VolumeSource{}:
		return "", errors.New("no kind of volume is given")
	case plugin(vol) == "":
		return "", fmt.Errorf("this kind of volume is %w; emptyDir, hostPath, configMap, secret, downwardAPI and projected are", ErrUnsupported)
	}
	files, err := Files(p, vol, s, v.machine)
	if err != nil {
		return "", err
	}
	path := filepath.Join(v.dir, string(p.UID), volumesDir, plugin(vol), vol.Name)
	return path, v.write(p, vol, path, files)
}

// emptyDir makes a directory that the pod's containers may all write to. It
// is given its rights once: they are the containers' to change.
func (v *Volumes) emptyDir(p *corev1.Pod, vol corev1.Volume, path string) error {
	plugin := filepath.Join(v.dir, string(p.UID), pluginsDir, emptyDirPlugin, vol.Name)
	ready := filepath.Join(plugin, "ready")
	made, err := exists(path)
	if err != nil {
		return err
	}
	if made {
		if made, err = exists(ready); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	switch medium := vol.EmptyDir.Medium; medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		mounted, err := mountinfo.Mounted(path)
		if err != nil {
			return err
		}
		if !mounted {
			made = false // of the last boot
			if err := unix.Mount("tmpfs", path, "tmpfs", 0, tmpfsOptions(p, vol.EmptyDir)); err != nil {
				return fmt.Errorf("mount tmpfs on %s: %w", path, err)
			}
		}
	default:
		return fmt.Errorf("medium %q is %w; \"\" and Memory are", medium, ErrUnsupported)
	}
	if made {
		return nil
	}
	mode := uint32(0o777)
	if c := p.Spec.SecurityContext; c != nil && c.FSGroup != nil {
		mode |= unix.S_ISGID
		if err := os.Chown(path, -1, int(*c.FSGroup)); err != nil {
			return err
		}
	}
	if err := unix.Chmod(path, mode); err != nil {
		return fmt.Errorf("chmod %s: %w", path, err)
	}
	if err := os.MkdirAll(plugin, 0o750); err != nil {
		return err
	}
	return os.WriteFile(ready, nil, 0o640)
}

// tmpfsOptions bound the memory that a volume can take: by its own limit, else
// by the pod's, which is charged for it.
func tmpfsOptions(p *corev1.Pod, e *corev1.EmptyDirVolumeSource) string {
	size := int64(0)
	if e.SizeLimit != nil {
		size = e.SizeLimit.Value()
	}
	sum := int64(0)
	for _, c := range p.Spec.Containers {
		limit := c.Resources.Limits.Memory().Value()
		if limit == 0 {
			sum = 0
			break
		}
		sum += limit
	}
	if sum > 0 && (size == 0 || sum < size) {
		size = sum
	}
	if size == 0 {
		return ""
	}
	return "size=" + strconv.FormatInt(size, 10)
}

// hostPath checks, and makes where the type says so, a path of the machine.
func hostPath(h *corev1.HostPathVolumeSource) error {
	want := corev1.HostPathUnset
	if h.Type != nil {
		want = *h.Type
	}
	st, err := os.Stat(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		switch want {
		case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
			return os.MkdirAll(h.Path, 0o755)
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return fmt.Errorf("%w: FileOrCreate does not make the directory", err)
			}
			return f.Close()
		}
	} else if err != nil {
		return err
	}
	is := func(t fs.FileMode) bool { return st != nil && st.Mode().Type() == t }
	wrong := func(what string) error { return fmt.Errorf("hostPath type check failed: %s is not %s", h.Path, what) }
	switch want {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory:
		if !is(fs.ModeDir) {
			return wrong("a directory")
		}
	case corev1.HostPathFileOrCreate, corev1.HostPathFile:
		if !is(0) {
			return wrong("a file")
		}
	case corev1.HostPathSocket:
		if !is(fs.ModeSocket) {
			return wrong("a socket file")
		}
	case corev1.HostPathCharDev:
		if !is(fs.ModeDevice | fs.ModeCharDevice) {
			return wrong("a character device")
		}
	case corev1.HostPathBlockDev:
		if !is(fs.ModeDevice) {
			return wrong("a block device")
		}
	default:
		return fmt.Errorf("%s is an invalid volume type", want)
	}
	return nil
}

// mount is the ith of container c.
func (v *Volumes) mount(p *corev1.Pod, c corev1.Container, i int, paths map[string]string, s api.Sources) (container.Mount, error) {
	m := c.VolumeMounts[i]
	out := container.Mount{ContainerPath: filepath.Join("/", m.MountPath), ReadOnly: m.ReadOnly}
	var ok bool
	if out.HostPath, ok = paths[m.Name]; !ok {
		return out, fmt.Errorf("the pod has no volume %q", m.Name)
	}
	// Files that follow their sources are nobody else's to change.
	files := slices.ContainsFunc(p.Spec.Volumes, func(vol corev1.Volume) bool {
		return vol.Name == m.Name && plugin(vol) != ""
	})
	out.ReadOnly = out.ReadOnly || files
	if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled {
		return out, fmt.Errorf("recursiveReadOnly: Enabled is %w", ErrUnsupported)
	}
	switch mode := m.MountPropagation; {
	case mode == nil || *mode == corev1.MountPropagationNone:
	case *mode == corev1.MountPropagationHostToContainer:
		out.Propagation = "rslave"
	case *mode == corev1.MountPropagationBidirectional:
		out.Propagation = "rshared"
	default:
		return out, fmt.Errorf("invalid mountPropagation %q", *mode)
	}
	sub, err := v.subPath(p, c, m, s)
	if err != nil || sub == "" {
		return out, err
	}
	at := filepath.Join(v.dir, string(p.UID), subpathsDir, m.Name, c.Name, strconv.Itoa(i))
	how := bind
	if files {
		how = bindFile
	}
	if err := how(out.HostPath, sub, at); err != nil {
		return out, fmt.Errorf("subPath %q of volume %q: %w", sub, m.Name, err)
	}
	out.HostPath = at
	return out, nil
}

// subPath is the part of the volume that m wants; empty: all of it.
func (v *Volumes) subPath(p *corev1.Pod, c corev1.Container, m corev1.VolumeMount, s api.Sources) (string, error) {
	sub := m.SubPath
	if m.SubPathExpr != "" {
		// The pod's address is known once its status has it.
		addr, _ := netip.ParseAddr(p.Status.PodIP)
		_, env, failed := pod.Environment(p, &c, pod.Setting{Machine: v.machine, Addr: addr, Sources: s})
		var missing []string
		sub = expansion.Expand(m.SubPathExpr, func(name string) string {
			value, ok := env[name]
			if !ok || value == "" {
				missing = append(missing, name)
			}
			return value
		})
		if len(missing) > 0 {
			return "", errors.Join(fmt.Errorf("subPathExpr %q: no value for %s", m.SubPathExpr, strings.Join(missing, ", ")), failed)
		}
	}
	if filepath.IsAbs(sub) {
		return "", fmt.Errorf("subPath %q must not be an absolute path", sub)
	}
	if slices.Contains(strings.Split(sub, "/"), "..") {
		return "", fmt.Errorf("subPath %q must not contain \"..\"", sub)
	}
	if sub = filepath.Clean(sub); sub == "." {
		return "", nil
	}
	return sub, nil
}

// Teardown unmounts and removes what was set up for a pod. Unknown pods are no
// error.
func (v *Volumes) Teardown(ctx context.Context, uid types.UID) error {
	if uid == "" || strings.ContainsAny(string(uid), "/") || uid == "." || uid == ".." {
		return fmt.Errorf("invalid pod UID %q", uid)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(v.dir, string(uid)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, sub := range ours {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := remove(filepath.Join(dir, sub)); err != nil {
			return fmt.Errorf("tear down volumes of pod %s: %w", uid, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// remove unmounts everything below dir and removes it. Nothing is removed as
// long as anything is mounted there: it may be the machine's own.
func remove(dir string) error {
	for {
		mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return os.RemoveAll(dir)
		}
		for _, m := range slices.Backward(mounts) {
			err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW)
			if errors.Is(err, unix.EBUSY) {
				err = unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
			}
			if err != nil {
				return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
			}
		}
	}
}

// Pods lists who has volumes here.
func (v *Volumes) Pods(context.Context) ([]types.UID, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var uids []types.UID
	for _, e := range entries {
		if e.Type().IsRegular() {
			continue // somebody put it there
		}
		for _, sub := range ours {
			has, err := exists(filepath.Join(v.dir, e.Name(), sub))
			if err != nil {
				return nil, err
			}
			if has {
				uids = append(uids, types.UID(e.Name()))
				break
			}
		}
	}
	return uids, nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

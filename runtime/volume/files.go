package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/kubernetes/pkg/volume/downwardapi"
	"k8s.io/kubernetes/pkg/volume/secret"
	"k8s.io/kubernetes/pkg/volume/util"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/pod"
)

const (
	configMapPlugin   = "kubernetes.io~configmap"
	secretPlugin      = "kubernetes.io~secret"
	downwardAPIPlugin = "kubernetes.io~downward-api"
	projectedPlugin   = "kubernetes.io~projected"
)

// plugin is where a volume of files stands; empty: vol is none.
func plugin(vol corev1.Volume) string {
	switch {
	case vol.ConfigMap != nil:
		return configMapPlugin
	case vol.Secret != nil:
		return secretPlugin
	case vol.DownwardAPI != nil:
		return downwardAPIPlugin
	case vol.Projected != nil:
		return projectedPlugin
	}
	return ""
}

// Payload is the files of a volume, by their paths in it.
type Payload map[string]util.FileProjection

// Files are those of a volume that is made of what its pod refers to or says of
// itself; nil if vol is of another kind.
func Files(p *corev1.Pod, vol corev1.Volume, s api.Sources, m pod.Machine) (Payload, error) {
	switch {
	case vol.ConfigMap != nil:
		c := vol.ConfigMap
		return configMapFiles(s, c.Name, c.Items, c.DefaultMode, c.Optional)
	case vol.Secret != nil:
		c := vol.Secret
		return secretFiles(s, c.SecretName, c.Items, c.DefaultMode, c.Optional)
	case vol.DownwardAPI != nil:
		return downwardapi.CollectData(vol.DownwardAPI.Items, p, node{allocatable: m.Allocatable}, vol.DownwardAPI.DefaultMode)
	case vol.Projected != nil:
		return projectedFiles(p, vol.Projected, s, m)
	}
	return nil, nil
}

func configMapFiles(s api.Sources, name string, items []corev1.KeyToPath, mode *int32, optional *bool) (Payload, error) {
	may := optional != nil && *optional
	m, err := s.ConfigMap(name)
	if may && apierrors.IsNotFound(err) {
		m, err = &corev1.ConfigMap{}, nil
	}
	if err != nil {
		return nil, err
	}
	return configmap.MakePayload(items, m, mode, may)
}

func secretFiles(s api.Sources, name string, items []corev1.KeyToPath, mode *int32, optional *bool) (Payload, error) {
	may := optional != nil && *optional
	m, err := s.Secret(name)
	if may && apierrors.IsNotFound(err) {
		m, err = &corev1.Secret{}, nil
	}
	if err != nil {
		return nil, err
	}
	return secret.MakePayload(items, m, mode, may)
}

// projectedFiles puts the files of all sources together; of two with one path
// the later stays.
func projectedFiles(p *corev1.Pod, v *corev1.ProjectedVolumeSource, s api.Sources, m pod.Machine) (Payload, error) {
	all := Payload{}
	var errs []error
	for _, source := range v.Sources {
		var files Payload
		var err error
		switch {
		case source.ConfigMap != nil:
			c := source.ConfigMap
			files, err = configMapFiles(s, c.Name, c.Items, v.DefaultMode, c.Optional)
		case source.Secret != nil:
			c := source.Secret
			files, err = secretFiles(s, c.Name, c.Items, v.DefaultMode, c.Optional)
		case source.DownwardAPI != nil:
			files, err = downwardapi.CollectData(source.DownwardAPI.Items, p, node{allocatable: m.Allocatable}, v.DefaultMode)
		default:
			err = fmt.Errorf("this kind of projected source is %w; configMap, secret and downwardAPI are", ErrUnsupported)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for path, f := range files {
			all[path] = f
		}
	}
	return all, utilerrors.NewAggregate(errs)
}

// node is all that downwardapi.CollectData asks of its host.
type node struct {
	volume.VolumeHost
	allocatable corev1.ResourceList
}

// GetNodeAllocatable implements [volume.VolumeHost].
func (n node) GetNodeAllocatable() (corev1.ResourceList, error) { return n.allocatable, nil }

// write makes a volume's files what they should be, all at one moment. Those of
// anything but a ConfigMap stand in memory alone: a Secret may be among them.
func (v *Volumes) write(p *corev1.Pod, vol corev1.Volume, path string, files Payload) error {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	if vol.ConfigMap == nil {
		mounted, err := mountinfo.Mounted(path)
		if err == nil && !mounted {
			err = mountTmpfs(path)
		}
		if err != nil {
			return err
		}
	}
	has, err := exists(filepath.Join(path, "..data"))
	if err != nil {
		return err
	}
	if !has {
		if err := unix.Chmod(path, 0o777); err != nil {
			return fmt.Errorf("chmod %s: %w", path, err)
		}
	}
	if err := errors.Join(util.MakeNestedMountpoints(vol.Name, path, *p), clearUnfinished(path)); err != nil {
		return err
	}
	w, err := util.NewAtomicWriter(path, fmt.Sprintf("pod %s/%s volume %s", p.Namespace, p.Name, vol.Name))
	if err != nil {
		return err
	}
	return w.Write(files, func(string) error {
		if p.Spec.SecurityContext == nil {
			return nil
		}
		return volume.NewVolumeOwnership(readOnly{}, path, p.Spec.SecurityContext.FSGroup, nil, nil).ChangePermissions()
	})
}

// mountTmpfs mounts one whose pages are never swapped out, where the kernel
// (6.4) has such.
func mountTmpfs(path string) error {
	err := unix.Mount("tmpfs", path, "tmpfs", 0, "noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", path, "tmpfs", 0, "")
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", path, err)
	}
	return nil
}

// clearUnfinished removes what a writer left that died: the next one would
// stumble over its link, and never look at its directories.
func clearUnfinished(path string) error {
	current, err := os.Readlink(filepath.Join(path, "..data"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, "..") && name != "..data" && name != current {
			if err := os.RemoveAll(filepath.Join(path, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readOnly is all that volume.NewVolumeOwnership asks of a mounter: the pod's
// group may read these files, and write none.
type readOnly struct{ volume.Mounter }

// GetAttributes implements [volume.Mounter].
func (readOnly) GetAttributes() volume.Attributes { return volume.Attributes{ReadOnly: true} }

package main

import (
	"path/filepath"
	"testing"
)

func TestAnAgentTakesNothingThatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	dirs := []string{"--data-dir", filepath.Join(dir, "data"), "--run-dir", filepath.Join(dir, "run")}
	o, err := parse(dirs)
	if err != nil {
		t.Fatal(err)
	}
	if o.CgroupParent == "" || o.CgroupParent == "troupe" || o.CgroupParent != o.ContainerdNamespace {
		t.Errorf("cgroup %q, containerd namespace %q: of the default agent, or none", o.CgroupParent, o.ContainerdNamespace)
	}
	if o, err = parse(append(dirs, "--cgroup-parent", "/x/y", "--containerd-namespace", "z")); err != nil || o.CgroupParent != "/x/y" || o.ContainerdNamespace != "z" {
		t.Errorf("as asked: %+v, %v", o, err)
	}
	if o, err = parse(nil); err != nil || o.CgroupParent != "troupe" || o.ContainerdNamespace != "troupe" {
		t.Errorf("without flags: %+v, %v", o, err)
	}
	for _, flag := range []string{
		"--containerd-namespace=k8s.io", "--containerd-namespace=moby", "--cgroup-parent=/", "--cgroup-parent=..", "--cgroup-parent=system.slice",
		"--cgroup-parent=kubepods/x", "--data-dir=", "--run-dir=/run",
	} {
		if _, err := parse(append(dirs, flag)); err == nil {
			t.Errorf("%s: no error", flag)
		}
	}
}

package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestFlagsGoOverTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "c.yaml")
	text := "name: n1\nrunDir: " + dir + "/run\nlogLevel: debug\nrestartBackoff: 3s\nlimits: {writes: 7}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--config", file, "--name", "n2", "--data-dir", dir + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	if o.Name != "n2" || o.LogLevel != "debug" || o.level != slog.LevelDebug || o.RestartBackoff.Duration != 3*time.Second ||
		o.Limits.Reads != 400 || o.Limits.Writes != 7 || o.Socket != dir+"/run/troupe.sock" || o.pods.String() != "10.244.0.0/16" {
		t.Errorf("%+v", o)
	}
	if err := os.WriteFile(file, []byte("nam: n1\npodCIDR: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = parse([]string{"--config=" + file})
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), file+":1: ") || !strings.Contains(err.Error(), file+":2: podCIDR") {
		t.Errorf("two errors: %v", err)
	}
	for _, args := range [][]string{{"--config", file + ".none"}, {"--name=N"}, {"what"}, {"--socket", "/" + strings.Repeat("x", 107)}, {"--log-level=loud"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

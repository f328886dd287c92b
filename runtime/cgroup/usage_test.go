package cgroup

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The machine has one version of the hierarchies; both are read from files here.
func TestUsageInBothVersions(t *testing.T) {
	root := t.TempDir()
	for file, text := range map[string]string{
		"cpuacct/p/cpuacct.usage":        "1500000000\n",
		"memory/p/memory.usage_in_bytes": "10000\n",
		"memory/p/memory.stat":           "inactive_file 1\ntotal_inactive_file 4000\n",
		"p/cpu.stat":                     "usage_usec 2500000\nuser_usec 1\n",
		"p/memory.current":               "9000\n",
		"p/memory.stat":                  "anon 3\ninactive_file 12000\n",
	} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for unified, want := range map[bool]Use{
		false: {CPU: 1500 * time.Millisecond, Memory: 6000},
		true:  {CPU: 2500 * time.Millisecond, Memory: 0}, // more of it idle than there is: never less than nothing
	} {
		if got, err := usage(root, unified, "/p"); err != nil || got != want {
			t.Errorf("unified %v: %+v, %v, want %+v", unified, got, err, want)
		}
	}
}

func TestUsageOfTheMachine(t *testing.T) {
	use, err := Usage("/")
	if err != nil {
		t.Fatal(err)
	}
	if use.CPU <= 0 || use.Memory <= 0 {
		t.Errorf("nothing used: %+v", use)
	}
	file := filepath.Join(t.TempDir(), "meminfo")
	if err := os.WriteFile(file, []byte("MemTotal:       1000 kB\nMemFree:         300 kB\nInactive(file):  100 kB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := workingSetOfAll(file); err != nil || got != 600<<10 {
		t.Errorf("%d, %v", got, err)
	}
	if got, err := workingSetOfAll(meminfo); err != nil || got <= 0 {
		t.Errorf("%d, %v", got, err)
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/troupe-sh/troupe/cmd/internal/doctor"
)

func TestFindingsAreALineEach(t *testing.T) {
	var out bytes.Buffer
	err := printFindings(&out, "", []doctor.Finding{
		{Check: "kernel", Status: doctor.OK, Found: "Linux 6.1"},
		{Check: "clock", Status: doctor.Warn, Found: "nobody keeps it", Remedy: "install chrony"},
		{Check: "runc", Status: doctor.Fail, Found: "runc: not there", Remedy: "install it"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `OK     kernel   Linux 6.1
WARN   clock    nobody keeps it => install chrony
FAIL   runc     runc: not there => install it
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	args := []string{"doctor", "--data-dir", filepath.Join(dir, "data"), "--run-dir", filepath.Join(dir, "run")}
	// This test's binary stands alone: at least its programs are missing.
	r := troupe(t, filepath.Join(dir, "s"), "", args...)
	r.failed(t, 1)
	if r.err != "" {
		t.Errorf("said: %s", r.err)
	}
	r = troupe(t, filepath.Join(dir, "s"), "", append(args, "-o", "json")...)
	var out struct {
		Fit    bool
		Checks []doctor.Finding
	}
	if err := json.Unmarshal([]byte(r.out), &out); err != nil || r.code != 1 {
		t.Fatalf("exit code %d, %v: %s", r.code, err, r.out)
	}
	status := map[string]doctor.Status{}
	for _, f := range out.Checks {
		status[f.Check] = f.Status
	}
	if out.Fit || status["programs"] != doctor.Fail || status["agent"] != doctor.Warn || status["socket"] != doctor.OK {
		t.Errorf("fit %v: %v", out.Fit, status)
	}
	troupe(t, filepath.Join(dir, "s"), "", append(args, "-o", "xml")...).failed(t, 1, "use json or yaml")
	troupe(t, filepath.Join(dir, "s"), "", append(args, "--pod-cidr", "x")...).failed(t, 1, "--pod-cidr")
}

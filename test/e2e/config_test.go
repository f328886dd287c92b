package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

// TestConfiguration: an agent comes up from a file, takes over what changed in
// it on SIGHUP, and says what it cannot take over; its pods do not notice.
func TestConfiguration(t *testing.T) {
	h := lab.NewHost(t, lab.Options{Containerd: lab.StartContainerd(t)})
	file := filepath.Join(h.Dir, "config.yaml")
	configure := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := []string{"name: " + h.Name, "dataDir: " + h.Data, "runDir: " + h.Run}
	configure(append(base, "nodeName: x")...)
	if _, said, code := h.TryTroupe("", "up", "--detach", "--config", file); code != 1 || !strings.Contains(said, file+`:4: unknown key "nodeName"`) {
		t.Errorf("up with a wrong file: exit code %d: %s", code, said)
	}
	configure(base...)
	h.Options.Flags = []string{"--config", file}
	h.Up()
	h.LoadImages("troupe-test")
	h.TroupeIn(pod("p", "troupe-test", nil), "apply", "-f", "-")
	before := livesOf([]corev1.Pod{*waitPod(t, h, "p", "is Ready", isReady)})

	hangup := func() {
		t.Helper()
		if err := unix.Kill(h.PID(), unix.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	says := func(what string) {
		t.Helper()
		lab.Eventually(t, patience, "the log has "+what, func() error {
			log, err := os.ReadFile(filepath.Join(h.Data, "trouped.log"))
			if err != nil || strings.Contains(string(log), what) {
				return err
			}
			return fmt.Errorf("it has not")
		})
	}
	configure(append(base, "logLevel: debug", "limits: {reads: 1000}", "imageGC: {highPercent: 90}", "podCIDR: 10.99.0.0/16")...)
	hangup()
	says(`msg="needs restart" node=` + h.Name + ` key=podCIDR`)
	says(`msg="configuration reloaded" node=` + h.Name + ` changed="logLevel imageGC.highPercent limits.reads"`)
	says(`msg="resolvers reloaded"`)
	h.Troupe("get", "pods")
	says("level=DEBUG") // which is in force

	configure(append(base, "logLevel: loud", "limits: {reads: 0}")...)
	hangup()
	says(file + `:4: logLevel: \"loud\" is none of debug, info, warn, error`)
	says(file + `:5: limits.reads: 0 is not between 1 and 100000`)

	same(t, "the configuration was reloaded", before, livesOf([]corev1.Pod{*podOf(t, h, "p")}))
}

package e2e_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/test/lab"
)

func TestPortForwardToALoopback(t *testing.T) {
	h := start(t, "busybox")
	h.TroupeIn(pod("local", "busybox", []string{"httpd", "-f", "-p", "127.0.0.1:80", "-h", "/etc"}), "apply", "-f", "-")
	waitPod(t, h, "local", "runs", isReady)
	c := h.TroupeCommand(t.Context(), "port-forward", "local", ":80", "--address", "127.0.0.1")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill() }()
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	at := regexp.MustCompile(`^Forwarding from (127\.0\.0\.1:\d+) -> 80\n$`).FindStringSubmatch(line)
	if at == nil {
		t.Fatalf("%q, %v; %s", line, err, &said)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	for range 3 {
		if page := answers(t, h, "http://"+at[1]+"/hostname"); strings.TrimSpace(page) != "local" {
			t.Errorf("page %q", page)
		}
	}
	// The session ends with the pod, when a connection tells it.
	h.Troupe("delete", "pod", "local")
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	lab.Eventually(t, patience, "the session ends", func() error {
		if r, err := h.HTTP().Get("http://" + at[1] + "/hostname"); err == nil {
			r.Body.Close()
			t.Errorf("a pod that is gone answers: %s", r.Status)
		}
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(said.String(), "lost connection to pod") {
				t.Errorf("%v: %s", err, &said)
			}
			return nil
		default:
			return errors.New("it goes on")
		}
	})
}

func TestCopy(t *testing.T) {
	h := start(t, "busybox")
	h.TroupeIn(pod("box", "busybox", []string{"sleep", "1000"}), "apply", "-f", "-")
	waitPod(t, h, "box", "runs", isReady)
	dir := t.TempDir()
	much := strings.Repeat("0123456789abcdef", 1<<18) // 4 MiB
	for name, text := range map[string]string{"tree/much": much, "tree/sub/leaf": "green"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	h.Troupe("cp", filepath.Join(dir, "tree"), "box:/tmp")
	if out := h.Troupe("exec", "box", "--", "cat", "/tmp/tree/sub/leaf"); out != "green" {
		t.Errorf("in the container: %q", out)
	}
	h.Troupe("cp", "box:/tmp/tree", filepath.Join(dir, "back"))
	for name, want := range map[string]string{"much": much, "sub/leaf": "green"} {
		got, err := os.ReadFile(filepath.Join(dir, "back", name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes of %d came back, %v", name, len(got), len(want), err)
		}
	}
	if _, said, code := h.TryTroupe("", "cp", "box:/nosuch", filepath.Join(dir, "none")); code == 0 || !strings.Contains(said, "nosuch") {
		t.Errorf("a file that is not there: code %d, %s", code, said)
	}
}

func TestRunInteractively(t *testing.T) {
	h := start(t, "busybox")
	run := []string{"run", "-i", "--rm", "--quiet", "--restart=Never", "--image=busybox", "--image-pull-policy=Never"}
	if out := h.TroupeIn("one\ntwo\n", append(run, "upper", "--", "tr", "a-z", "A-Z")...); out != "ONE\nTWO\n" {
		t.Errorf("%q", out)
	}
	if out, said, code := h.TryTroupe("7\n", append(run, "seven", "--", "sh", "-c", "read code; exit $code")...); code != 7 {
		t.Errorf("code %d, %s%s", code, out, said)
	}
	waitGone(t, h, "upper")
	waitGone(t, h, "seven")
}

// terminal opens a pseudo-terminal: what a person sits at, and what a command runs in.
func terminal(t *testing.T) (person, command *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	raw, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	if controlErr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
		if err == nil {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99})
		}
	}); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	if command, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { command.Close() })
	return person, command
}

func TestAttachToATerminal(t *testing.T) {
	h := start(t, "busybox")
	m := strings.Replace(pod("shell", "busybox", []string{"sh"}, "restartPolicy: Never"), "args:", "stdin: true, tty: true, args:", 1)
	h.TroupeIn(m, "apply", "-f", "-")
	waitPod(t, h, "shell", "runs", isReady)
	person, command := terminal(t)
	c := h.TroupeCommand(t.Context(), "attach", "-it", "--quiet", "shell")
	c.Stdin, c.Stdout, c.Stderr = command, command, command
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	if err := person.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var screen []byte
	sees := func(want string) {
		t.Helper()
		for buf := make([]byte, 4096); !bytes.Contains(screen, []byte(want)); {
			n, err := person.Read(buf)
			if screen = append(screen, buf[:n]...); err != nil {
				t.Fatalf("no %q on the screen: %v\n%q", want, err, screen)
			}
		}
		screen = screen[bytes.Index(screen, []byte(want))+len(want):]
	}
	types := func(text string) {
		t.Helper()
		if _, err := io.WriteString(person, text); err != nil {
			t.Fatal(err)
		}
	}
	sees("# ") // the prompt was there before anybody came
	types("echo $((6*7))\r")
	sees("\r\n42\r\n")
	sees("# ")
	types("stty size\r")
	sees("\r\n33 99\r\n")
	sees("# ")
	types("exit 3\r")
	p := waitPod(t, h, "shell", "has failed", inPhase(corev1.PodFailed))
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 3 {
		t.Errorf("%+v", p.Status.ContainerStatuses[0].State)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("attach: %v\n%q", err, screen)
	}
	// What was typed stands there as the shell echoed it, perhaps redrawn in the middle of a line.
	if log := h.Troupe("logs", "shell"); !strings.Contains(log, "42\r\n") || !strings.Contains(log, "33 99\r\n") {
		t.Errorf("log:\n%s", log)
	}
}

func TestDrain(t *testing.T) {
	h := start(t, "troupe-test")
	h.TroupeIn(rc("web", 2, "troupe-test"), "apply", "-f", "-")
	before := livesOf(waitReady(t, h, "web", 2))
	out := h.Troupe("drain", h.Name)
	for name := range before {
		if !strings.Contains(out, "pod/"+name+" evicted") {
			t.Errorf("no eviction of %s in:\n%s", name, out)
		}
	}
	if !strings.Contains(out, "node/"+h.Name+" drained") {
		t.Errorf("drain:\n%s", out)
	}
	lab.Eventually(t, patience, "the replacements wait for a node", func() error {
		all := pods(t, h, "web")
		for i := range all {
			if _, old := before[all[i].Name]; old || all[i].Spec.NodeName != "" {
				return fmt.Errorf("%s is on node %q", all[i].Name, all[i].Spec.NodeName)
			}
		}
		if len(all) != 2 {
			return fmt.Errorf("%d pods", len(all))
		}
		return nil
	})
	h.Troupe("uncordon", h.Name)
	waitReady(t, h, "web", 2)
}

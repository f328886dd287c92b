package ctrd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/container"
)

func TestFilesOfAnImageThatMeansHarm(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		make func(root string) error
		want string
		err  error
	}{
		"nothing": {make: func(string) error { return nil }},
		"a file":  {make: func(r string) error { return os.WriteFile(r+"/passwd", []byte("x"), 0o600) }, want: "x"},
		"a link into it": {make: func(r string) error {
			return errors.Join(os.WriteFile(r+"/f", []byte("x"), 0o600), os.Symlink("/f", r+"/passwd"))
		}, want: "x"},
		"a link out of it": {make: func(r string) error { return os.Symlink(outside, r+"/passwd") }},
		"a way up":         {make: func(r string) error { return os.Symlink(strings.Repeat("../", 40)+outside, r+"/passwd") }},
		"a circle":         {make: func(r string) error { return os.Symlink("passwd", r+"/passwd") }, err: container.ErrInvalid},
		"a directory":      {make: func(r string) error { return os.Mkdir(r+"/passwd", 0o700) }},
		"a pipe":           {make: func(r string) error { return unix.Mkfifo(r+"/passwd", 0o600) }},
		"a socket":         {make: func(r string) error { return unix.Mknod(r+"/passwd", unix.S_IFSOCK|0o600, 0) }},
		"too much": {make: func(r string) error {
			return errors.Join(os.WriteFile(r+"/passwd", nil, 0o600), os.Truncate(r+"/passwd", 1<<40))
		}, err: container.ErrInvalid},
	} {
		root := t.TempDir()
		if err := c.make(root); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := readIfThere(root, "passwd")
		if string(got) != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// Who runs is found in files of the image; whatever stands there gives a user or an error.
func FuzzUsers(f *testing.F) {
	f.Add("", "root:x:0:0::/:/bin/sh\nu:x:1000:1000::/:\n", "g:x:5:u\n")
	f.Add("u:g", "u:x:4294967295:-1\n:::\n\n", "g:x:99999999999:u,u,\n")
	f.Add("0:0", ":", "\x00")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		u, err := resolveUser(container.Security{User: name, RunAsNonRoot: true}, "0", []byte(passwd), []byte(group))
		if err == nil && u.UID == 0 {
			t.Errorf("%q runs as root", name)
		}
		if err != nil && !errors.Is(err, container.ErrInvalid) {
			t.Errorf("%v", err)
		}
	})
}

func FuzzImageNames(f *testing.F) {
	f.Add("nginx:1.2")
	f.Add("a.b:5000/c/d@sha256:" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, name string) {
		full, err := container.ImageName(name)
		if err != nil {
			return
		}
		if again, err := container.ImageName(full); err != nil || again != full {
			t.Errorf("%q is %q, which is %q: %v", name, full, again, err)
		}
		if a := archiveName(name); a != "" && a != full {
			t.Errorf("an archive's %q is %q, not %q", name, a, full)
		}
	})
}

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// left out of the images: what no program reads.
var left = []string{"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/lintian/", "usr/share/info/", "usr/share/bash-completion/", "usr/share/bug/", "usr/lib/systemd/", "usr/share/menu/", "usr/share/common-licenses/", "etc/init.d/", "etc/default/", "etc/logrotate.d/"}

// debian returns the files of the packages with the libraries that their
// programs need and that are not in below.
func debian(cache string, packages []string, below tree) (tree, error) {
	debs, err := fetch(cache, packages)
	if err != nil {
		return nil, err
	}
	out, pool := tree{}, tree{}
	for _, deb := range debs {
		name, _, _ := strings.Cut(filepath.Base(deb), "_")
		into := pool
		if slices.Contains(packages, name) {
			into = out
		}
		if err := unpack(deb, into); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", deb, err)
		}
	}
	return out, addLibraries(out, below, pool)
}

// fetch downloads the packages and all libraries that they depend on, once
// for each set of packages.
func fetch(cache string, packages []string) ([]string, error) {
	dir := filepath.Join(cache, fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(packages, " "))))[:16])
	if _, err := os.Stat(dir); err == nil {
		return filepath.Glob(filepath.Join(dir, "*.deb"))
	}
	args := append([]string{
		"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances",
	}, packages...)
	all, err := exec.Command("apt-cache", args...).Output()
	if err != nil {
		return nil, command(err, "apt-cache", args)
	}
	wanted := slices.Clone(packages)
	for s := bufio.NewScanner(bytes.NewReader(all)); s.Scan(); {
		if n := s.Text(); (strings.HasPrefix(n, "lib") || strings.HasPrefix(n, "zlib")) && !slices.Contains(wanted, n) {
			wanted = append(wanted, n)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	part, err := os.MkdirTemp(cache, "part")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(part)
	download := exec.Command("apt-get", append([]string{"-qq", "-o", "APT::Sandbox::User=root", "download"}, wanted...)...)
	download.Dir = part
	var said bytes.Buffer
	download.Stderr = &said
	if err := download.Run(); err != nil {
		return nil, fmt.Errorf("apt-get download %s: %w: %s(does \"apt-get update\" mend it?)", strings.Join(packages, " "), err, said.String())
	}
	if err := os.Rename(part, dir); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(dir, "*.deb"))
}

func command(err error, name string, args []string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
}

// unpack adds a package's files to t, where Debian's images have them: /bin
// and its like are links into /usr.
func unpack(deb string, t tree) error {
	b, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
	if err != nil {
		return command(err, "dpkg-deb", []string{deb})
	}
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := inUsr(h.Name)
		if name == "" || slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(name+"/", l) }) {
			continue
		}
		e := entry{mode: h.Mode & 0o7777}
		switch h.Typeflag {
		case tar.TypeDir:
			e.dir = true
		case tar.TypeSymlink:
			e.link = h.Linkname
		case tar.TypeLink:
			e = t[inUsr(h.Linkname)]
		case tar.TypeReg:
			if e.body, err = io.ReadAll(r); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: a file of type %c", h.Name, h.Typeflag)
		}
		t[name] = e
	}
}

// inUsr is a path without its leading slash, in the merged layout.
func inUsr(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains([]string{"bin", "sbin", "lib", "lib64"}, first) {
		if first == name {
			return "" // itself is a link
		}
		return "usr/" + name
	}
	return name
}

// addLibraries adds to t from pool what the programs in t load.
func addLibraries(t, below, pool tree) error {
	var todo []string
	for name, e := range t {
		if e.body != nil {
			todo = append(todo, name)
		}
	}
	slices.Sort(todo)
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		f, err := elf.NewFile(bytes.NewReader(t[name].body))
		if err != nil {
			continue // no program
		}
		needs, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				b, err := io.ReadAll(p.Open())
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				needs = append(needs, string(bytes.TrimRight(b, "\x00")))
			}
		}
		for _, need := range needs {
			if below.library(need) != "" || t.library(need) != "" {
				continue
			}
			lib := pool.library(need)
			if lib == "" {
				return fmt.Errorf("%s needs %s, which no package that it depends on has", name, need)
			}
			for { // a link, its target, …
				e := pool[lib]
				t[lib] = e
				if e.link == "" {
					todo = append(todo, lib)
					break
				}
				if strings.HasPrefix(e.link, "/") {
					lib = inUsr(e.link)
				} else {
					lib = inUsr(path.Join(path.Dir(lib), e.link))
				}
				if _, ok := pool[lib]; !ok {
					return fmt.Errorf("%s needs %s, which links to %s: no package has it", name, need, lib)
				}
			}
		}
	}
	return nil
}

// library finds a library by name, or the program loader by its path.
func (t tree) library(name string) string {
	if strings.HasPrefix(name, "/") {
		if name = inUsr(name); t.has(name) {
			return name
		}
		return ""
	}
	var found string
	for p := range t {
		if path.Base(p) == name && strings.HasPrefix(p, "usr/lib") && strings.Count(p, "/") <= 3 && (found == "" || p < found) {
			found = p
		}
	}
	return found
}

func (t tree) has(name string) bool {
	_, ok := t[name]
	return ok
}

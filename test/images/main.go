// Command images builds the images that tests, examples and manifests use, as
// archives in the format of docker save: real ones from Debian's packages, the
// others from a small program of our own. No registry is needed. An archive
// that is built already from the same things is left alone.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	out := flag.String("out", "bin/images", "where the archives go")
	cache := flag.String("cache", ".cache/debs", "where Debian packages are kept")
	flag.Parse()
	if err := run(*out, *cache); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// builder builds the images in their order.
type builder struct {
	out, cache string
	program    []byte            // troupe-test
	keys       map[string]string // image → what it is made from
	layers     map[string][]tree // image → its layers, once somebody asked
}

func run(out, cache string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	program, err := compile()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	how, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	b := builder{out: out, cache: cache, program: program, keys: map[string]string{}, layers: map[string][]tree{}}
	for _, i := range images {
		b.keys[i.name] = key(how, program)
		if err := b.build(i); err != nil {
			return fmt.Errorf("%s: %w", i.name, err)
		}
	}
	return nil
}

// key names what an image is made from: this program, which holds the table,
// and troupe-test.
func key(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		h.Write(p)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// compile builds troupe-test.
func compile() ([]byte, error) {
	dir, err := os.MkdirTemp("", "troupe-test")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "troupe-test")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", bin, "github.com/troupe-sh/troupe/test/images/troupe-test")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("build troupe-test: %w", err)
	}
	return os.ReadFile(bin)
}

func (b *builder) build(i image) error {
	file := filepath.Join(b.out, i.name+".tar")
	mark := filepath.Join(b.out, "."+i.name+".key")
	if made, err := os.ReadFile(mark); err == nil && string(made) == b.keys[i.name] {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
	}
	trees, err := b.trees(i.name)
	if err != nil {
		return err
	}
	img := empty.Image
	for _, t := range trees {
		raw, err := t.tar()
		if err != nil {
			return err
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
		if err != nil {
			return err
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return err
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	cf = cf.DeepCopy()
	cf.Architecture, cf.OS, cf.Config, cf.Created = runtime.GOARCH, "linux", i.config, v1.Time{}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		return err
	}
	if err := os.Remove(mark); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := save(file+".new", img, i.tags); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	fmt.Println(file)
	return os.WriteFile(mark, []byte(b.keys[i.name]), 0o644)
}

// save writes what docker save would. (The library's own writer puts the tags
// in an order of chance.)
func save(file string, img v1.Image, tags []string) error {
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	id, err := img.ConfigName()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	manifest := tarball.Descriptor{Config: id.String(), RepoTags: slices.Sorted(slices.Values(tags))}
	type part struct {
		name string
		body []byte
	}
	parts := []part{{id.String(), config}}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		r, err := l.Compressed()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, d.Hex+".tar.gz")
		parts = append(parts, part{d.Hex + ".tar.gz", b})
	}
	m, err := json.Marshal(tarball.Manifest{manifest})
	if err != nil {
		return err
	}
	parts = append(parts, part{"manifest.json", m})
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, p := range parts {
		if err := w.WriteHeader(&tar.Header{Name: p.name, Mode: 0o644, Size: int64(len(p.body))}); err != nil {
			return err
		}
		if _, err := w.Write(p.body); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// trees are the layers of an image, the lowest first.
func (b *builder) trees(name string) ([]tree, error) {
	if t, ok := b.layers[name]; ok {
		return t, nil
	}
	i := images[slices.IndexFunc(images, func(i image) bool { return i.name == name })]
	var trees []tree
	below := tree{}
	if i.base != "" {
		var err error
		if trees, err = b.trees(i.base); err != nil {
			return nil, err
		}
		for _, t := range trees {
			maps.Copy(below, t)
		}
	}
	own := tree{}
	if len(i.packages) > 0 {
		var err error
		if own, err = debian(b.cache, i.packages, below); err != nil {
			return nil, err
		}
	}
	if i.busybox {
		if err := b.busybox(own); err != nil {
			return nil, err
		}
	}
	if i.test {
		own["bin/troupe-test"] = entry{mode: 0o755, body: b.program}
	}
	for _, d := range i.dirs {
		mode := int64(0o755)
		if path.Base(d) == "tmp" {
			mode = 0o1777
		}
		own[d] = entry{mode: mode, dir: true}
	}
	for p, text := range i.files {
		mode := int64(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		own[p] = entry{mode: mode, body: []byte(text)}
	}
	for p, target := range i.links {
		own[p] = entry{mode: 0o777, link: target}
	}
	if len(own) > 0 {
		trees = append(slices.Clip(trees), own)
	}
	b.layers[name] = trees
	return trees, nil
}

// busybox adds Debian's static busybox with a link for each applet.
func (b *builder) busybox(t tree) error {
	all, err := debian(b.cache, []string{"busybox-static"}, nil)
	if err != nil {
		return err
	}
	program := all["usr/bin/busybox"].body
	if program == nil {
		return errors.New("the package busybox-static has no /bin/busybox")
	}
	t["bin/busybox"] = entry{mode: 0o755, body: program}
	dir, err := os.MkdirTemp("", "busybox")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "busybox")
	if err := os.WriteFile(bin, program, 0o755); err != nil {
		return err
	}
	applets, err := exec.Command(bin, "--list").Output()
	if err != nil {
		return command(err, bin, []string{"--list"})
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			t["bin/"+a] = entry{mode: 0o777, link: "busybox"}
		}
	}
	return nil
}

// tree is a layer: path without leading slash → what stands there.
type tree map[string]entry

// entry is a directory, a link or a file.
type entry struct {
	mode int64
	dir  bool
	link string
	body []byte
}

// tar is the layer as an archive that is the same for the same tree.
func (t tree) tar() ([]byte, error) {
	full := tree{}
	for p, e := range t {
		full[p] = e
		for d := path.Dir(p); d != "."; d = path.Dir(d) {
			if _, ok := full[d]; !ok {
				full[d] = entry{mode: 0o755, dir: true}
			}
			if e, ok := t[d]; ok {
				full[d] = e
			}
		}
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, p := range slices.Sorted(maps.Keys(full)) {
		e := full[p]
		h := &tar.Header{Name: p, Mode: e.mode, Format: tar.FormatPAX}
		switch {
		case e.dir:
			h.Typeflag, h.Name = tar.TypeDir, p+"/"
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		default:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.body))
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decimal(n int) string { return strconv.Itoa(n) }

package sdk_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// outside is a program in a module of its own, as a user writes it.
const outside = `package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/troupe-sh/troupe/sdk"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	client, err := sdk.Dial(os.Args[1])
	if err != nil {
		return err
	}
	defer client.Close()
	v, err := client.Version(ctx)
	if err != nil {
		return err
	}
	maps := sdk.For[*corev1.ConfigMap](client).Namespace("default")
	if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "outside"}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	cache := sdk.NewCache(maps, sdk.CacheOptions[*corev1.ConfigMap]{})
	go cache.Run(ctx)
	if err := cache.WaitSynced(ctx); err != nil {
		return err
	}
	_, err = maps.Get(ctx, "inside", metav1.GetOptions{})
	fmt.Println(v.Node, len(cache.List("default", labels.Everything())), errors.Is(err, sdk.ErrNotFound))
	return nil
}
`

func TestTheSDKWorksInAModuleOutside(t *testing.T) {
	s, _ := start(t)
	dir := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, filepath.Join(dir, "proxy"))
	write("m/main.go", outside)
	// Other modules come from where they were loaded to for this one.
	proxies := []string{"file://" + filepath.Join(dir, "proxy")}
	if known := goEnv(t, "GOMODCACHE"); known != "" {
		proxies = append(proxies, "file://"+filepath.Join(known, "cache", "download"))
	}
	proxies = append(proxies, goEnv(t, "GOPROXY"))
	env := append(os.Environ(), "GOPROXY="+strings.Join(proxies, ","), "GONOPROXY=none", "GOPRIVATE=", "GOSUMDB=off", "GOWORK=off",
		"GOFLAGS=-mod=mod -trimpath -modcacherw", "CGO_ENABLED=0", "GOMODCACHE="+filepath.Join(dir, "cache"))
	run := func(name string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		c := exec.CommandContext(ctx, name, args...)
		c.Dir, c.Env = filepath.Join(dir, "m"), env
		var said bytes.Buffer
		c.Stderr = &said
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, said.String())
		}
		return string(out)
	}
	run("go", "mod", "init", "example.com/outside")
	run("go", "get", published.Path+"/sdk@"+published.Version)
	run("go", "build", "-o", "outside", ".")
	if out := run(filepath.Join(dir, "m", "outside"), s.Socket); out != "n1 1 true\n" {
		t.Errorf("it printed %q", out)
	}
	mod, err := os.ReadFile(filepath.Join(dir, "m", "go.mod"))
	if err != nil || strings.Contains(string(mod), "replace") {
		t.Errorf("go.mod: %v\n%s", err, mod)
	}
	// What a user of the SDK builds in stays small.
	deps := run("go", "list", "-deps", ".")
	for _, heavy := range []string{"k8s.io/client-go/", "k8s.io/apiserver/", "k8s.io/kubernetes/", published.Path + "/api", "github.com/asynkron/"} {
		if strings.Contains(deps, "\n"+heavy) {
			t.Errorf("the SDK brings %s in", heavy)
		}
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

var published = module.Version{Path: "github.com/troupe-sh/troupe", Version: "v0.999.0"}

// publish makes a module proxy of this repository, as it stands.
func publish(t *testing.T, proxy string) {
	t.Helper()
	at := filepath.Join(proxy, published.Path, "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var files []zip.File
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		name := filepath.ToSlash(strings.TrimPrefix(path, "../"))
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "bin" || name == "tools" || strings.HasPrefix(d.Name(), ".") && path != ".."):
			return fs.SkipDir // no part of the module
		case d.Type().IsRegular():
			files = append(files, source{path, name})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := zip.Create(&archive, published, files); err != nil {
		t.Fatal(err)
	}
	info := fmt.Sprintf(`{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, published.Version)
	for suffix, content := range map[string][]byte{".mod": mod, ".zip": archive.Bytes(), ".info": []byte(info)} {
		if err := os.WriteFile(filepath.Join(at, published.Version+suffix), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// source is a file of the repository.
type source struct{ path, name string }

func (s source) Path() string                 { return s.name }
func (s source) Lstat() (fs.FileInfo, error)  { return os.Lstat(s.path) }
func (s source) Open() (io.ReadCloser, error) { return os.Open(s.path) }

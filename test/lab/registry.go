package lab

import (
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/troupe-sh/troupe/runtime/container/suite"
)

// StartRegistry runs an image registry in the host's network namespace until
// the test ends. certsDir tells an agent that it is called name: over HTTPS with
// a CA of its own, or over plain HTTP.
func (h *Host) StartRegistry(certsDir, name, scheme string) *suite.Registry {
	h.t.Helper()
	r := suite.NewRegistry()
	server := httptest.NewUnstartedServer(r)
	server.Listener.Close()
	if err := h.In(func() (err error) {
		server.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		h.t.Fatalf("a registry: %v", err)
	}
	hosts := ""
	if scheme == "https" {
		server.StartTLS()
		hosts = "ca = \"ca.crt\"\n"
	} else {
		server.Start()
	}
	h.t.Cleanup(server.Close)
	dir := filepath.Join(certsDir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		h.t.Fatalf("%v", err)
	}
	if scheme == "https" {
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644); err != nil {
			h.t.Fatalf("%v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte("server = \""+server.URL+"\"\n"+hosts), 0o644); err != nil {
		h.t.Fatalf("%v", err)
	}
	return r
}

// ImageOf is the image in an archive.
func ImageOf(t TB, name string) v1.Image {
	t.Helper()
	image, err := tarball.ImageFromPath(Image(t, name), nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return image
}

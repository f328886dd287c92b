package seal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal/suite"
)

func secret(name string) api.Key {
	return api.Key{Resource: "secrets", Namespace: "default", Name: name}
}

func mustLoad(t *testing.T, path string) *Sealer {
	t.Helper()
	s, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsSealedOpensAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "sealing")
	plain := []byte("the password")
	sealed := mustLoad(t, path).Seal(secret("a"), plain)
	if bytes.Contains(sealed, plain[:4]) {
		t.Error("it shows")
	}
	if bytes.Equal(sealed, mustLoad(t, path).Seal(secret("a"), plain)) {
		t.Error("the same value twice looks the same")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	s := mustLoad(t, path)
	if opened, err := s.Open(secret("a"), sealed); err != nil || !bytes.Equal(opened, plain) {
		t.Errorf("opened to %q, %v", opened, err)
	}
	object, err := s.Decoder(suite.Decode)(secret("a"), sealed, 7)
	if err != nil || object.GetAnnotations()["value"] != string(plain) {
		t.Errorf("decoded to %v, %v", object, err)
	}
	if _, err := s.Open(secret("b"), sealed); err == nil {
		t.Error("it opens under another name")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := s.Open(secret("a"), bad); err == nil {
			t.Errorf("it opens with byte %d changed", i)
		}
	}
	for i := range sealed {
		if _, err := s.Open(secret("a"), sealed[:i]); err == nil {
			t.Errorf("%d bytes of it open", i)
		}
	}
}

func TestOtherResourcesPassThrough(t *testing.T) {
	s := mustLoad(t, filepath.Join(t.TempDir(), "sealing"))
	key, value := api.Key{Resource: "configmaps", Namespace: "default", Name: "a"}, []byte("plain")
	if !bytes.Equal(s.Seal(key, value), value) {
		t.Error("sealed")
	}
	if opened, err := s.Open(key, value); err != nil || !bytes.Equal(opened, value) {
		t.Errorf("opened to %q, %v", opened, err)
	}
}

func TestKeysAreRotatedByAFirstLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sealing")
	old := mustLoad(t, path).Seal(secret("a"), []byte("old"))
	line, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fresh := fmt.Sprintf("01020304 %s\n", strings.Repeat("ab", keySize))
	if err := os.WriteFile(path, append([]byte(fresh), line...), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustLoad(t, path)
	sealed := s.Seal(secret("a"), []byte("new"))
	if !bytes.HasPrefix(sealed, []byte{version, 1, 2, 3, 4}) {
		t.Error("not sealed with the new key")
	}
	if opened, err := s.Open(secret("a"), old); err != nil || string(opened) != "old" {
		t.Errorf("the old one: %q, %v", opened, err)
	}
	if err := os.WriteFile(path, []byte(fresh), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mustLoad(t, path).Open(secret("a"), old); err == nil || !strings.Contains(err.Error(), "not in the key file") {
		t.Errorf("without its key: %v", err)
	}
}

func TestABadKeyFileIsRefused(t *testing.T) {
	key := strings.Repeat("ab", keySize)
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"empty":              {"", 0o600},
		"open to others":     {"01020304 " + key + "\n", 0o644},
		"without an id":      {key + "\n", 0o600},
		"with a short key":   {"01020304 abab\n", 0o600},
		"with one id twice":  {"01020304 " + key + "\n01020304 " + key + "\n", 0o600},
		"with a broken line": {"01020304 " + key + "\nx\n", 0o600},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sealing")
			if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
}

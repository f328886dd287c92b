// Package seal encrypts the values of secret objects before they enter the
// journal, so that log, snapshots and history hold none in clear.
package seal

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal"
)

// Sealer seals the values of the resource "secrets"; others pass through it.
// A sealed value is a version byte, the id of its key, and AES-256-GCM's nonce
// and text, which is bound to the object's key: it opens under no other name.
type Sealer struct {
	current string // the id of the key that seals
	keys    map[string]cipher.AEAD
}

const (
	version   = 1
	idSize    = 4
	keySize   = 32
	resource  = "secrets"
	separator = " "
)

// Load reads the key file, and makes it (mode 0600) if there is none. It has a
// line for each key, its id and the key in hexadecimal: the first one seals,
// all of them open. So a key is rotated by a new first line.
func Load(path string) (*Sealer, error) {
	s, err := load(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("make sealing key %s: %w", path, err)
		}
		s, err = load(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read sealing keys %s: %w", path, err)
	}
	return s, nil
}

func load(path string) (*Sealer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others can read it (mode %04o): chmod 600 it", mode)
	}
	s := &Sealer{keys: make(map[string]cipher.AEAD)}
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		idText, keyText, _ := strings.Cut(lines.Text(), separator)
		id, err := hex.DecodeString(idText)
		if err != nil || len(id) != idSize {
			return nil, fmt.Errorf("line %d does not begin with a key's id", number)
		}
		key, err := hex.DecodeString(keyText)
		if err != nil || len(key) != keySize {
			return nil, fmt.Errorf("line %d has no key of %d bytes", number, keySize)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		if s.keys[string(id)] != nil {
			return nil, fmt.Errorf("line %d has the id of another", number)
		}
		s.keys[string(id)] = aead
		if number == 1 {
			s.current = string(id)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if s.current == "" {
		return nil, errors.New("there is no key in it")
	}
	return s, nil
}

// create makes a key file that is whole whenever it can be seen.
func create(path string) error {
	random := make([]byte, idSize+keySize)
	rand.Read(random) // never fails
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "%x%s%x\n", random[:idSize], separator, random[idSize:])
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Seal returns what the journal keeps of plain.
func (s *Sealer) Seal(key api.Key, plain []byte) []byte {
	if key.Resource != resource {
		return plain
	}
	sealed := append([]byte{version}, s.current...)
	return s.keys[s.current].Seal(sealed, nil, plain, bound(key))
}

// Open returns what was sealed under key.
func (s *Sealer) Open(key api.Key, sealed []byte) ([]byte, error) {
	if key.Resource != resource {
		return sealed, nil
	}
	if len(sealed) < 1+idSize || sealed[0] != version {
		return nil, fmt.Errorf("open %s: it is not sealed as this agent knows it", key)
	}
	id, text := sealed[1:1+idSize], sealed[1+idSize:]
	aead := s.keys[string(id)]
	if aead == nil {
		return nil, fmt.Errorf("open %s: it is sealed with key %x, which is not in the key file: bring that file back", key, id)
	}
	plain, err := aead.Open(nil, nil, text, bound(key))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return plain, nil
}

// Decoder opens values before decode sees them.
func (s *Sealer) Decoder(decode journal.Decoder) journal.Decoder {
	return func(key api.Key, value []byte, seq uint64) (api.Object, error) {
		plain, err := s.Open(key, value)
		if err != nil {
			return nil, err
		}
		return decode(key, plain, seq)
	}
}

// bound is key as additional data.
func bound(key api.Key) []byte {
	return bytes.Join([][]byte{[]byte(key.Resource), []byte(key.Namespace), []byte(key.Name)}, []byte{0})
}

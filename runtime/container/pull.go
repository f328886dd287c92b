package container

import (
	"crypto/sha256"
	"fmt"
	"sync"
)

// Auth is who asks a registry. The zero Auth is nobody in particular.
type Auth struct{ Username, Password string }

// Anyone is the fingerprint of the zero Auth.
const Anyone = "*"

// Fingerprint tells credentials apart without giving them away.
func (a Auth) Fingerprint() string {
	if a == (Auth{}) {
		return Anyone
	}
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%q:%q", a.Username, a.Password)))
}

// Progress is how far a pull is: whoever pulls writes it while others read. A
// nil one takes no notice.
type Progress struct {
	mu    sync.Mutex
	blobs map[string]*blob
}

type blob struct{ size, here int64 }

// Step is a moment of a pull. It only grows: what there is to bring is found
// out on the way.
type Step struct {
	Layers, LayersHere int
	Bytes, BytesHere   int64
}

// Expect says that a blob is to come, or is here already.
func (p *Progress) Expect(digest string, size int64, here bool) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.at(digest)
	b.size = size
	if here {
		b.here = size
	}
}

// Here says how much of a blob has come.
func (p *Progress) Here(digest string, bytes int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at(digest).here = bytes
}

func (p *Progress) at(digest string) *blob {
	b := p.blobs[digest]
	if b == nil {
		if p.blobs == nil {
			p.blobs = map[string]*blob{}
		}
		b = &blob{}
		p.blobs[digest] = b
	}
	return b
}

// Step is the moment.
func (p *Progress) Step() Step {
	var s Step
	if p == nil {
		return s
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.blobs {
		if b.size == 0 {
			continue // a manifest: nobody waits for it
		}
		s.Layers++
		s.Bytes += b.size
		s.BytesHere += min(b.here, b.size)
		if b.here >= b.size {
			s.LayersHere++
		}
	}
	return s
}

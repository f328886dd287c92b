package mailbox

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// Real returns the Kernel of production: the time package and goroutines.
func Real() Kernel { return On(real{}) }

type real struct{}

func (real) Now() time.Time { return time.Now() }

func (real) AfterFunc(d time.Duration, f func()) func() {
	t := time.AfterFunc(d, f)
	return func() { t.Stop() }
}

func (real) Go(f, then func()) {
	go func() {
		f()
		then()
	}()
}

func (real) NewUID() types.UID { return uuid.NewUUID() }

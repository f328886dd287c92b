package sandbox

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// Dial connects to a port on the loopback of a sandbox: IPv4's, or where
// nobody listens there IPv6's.
func (s *Store) Dial(ctx context.Context, id string, port uint16) (conn net.Conn, err error) {
	spec, _, err := s.Spec(id)
	if err != nil {
		return nil, err
	}
	dial := func() (err error) {
		for _, address := range []string{"127.0.0.1", "::1"} {
			// A literal address: no resolver, whose goroutines are elsewhere.
			c, failed := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
			if failed == nil {
				conn = c
				return nil
			}
			if err == nil {
				err = failed
			}
		}
		return err
	}
	if p := s.Paths(spec); p.Net == "" {
		err = dial()
	} else {
		err = inThread(func() error {
			if err := join(p.Net, unix.CLONE_NEWNET); err != nil {
				return err
			}
			return dial()
		})
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox %s: %w", id, err)
	}
	return conn, nil
}

package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"

	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Hook does what a container wants done after its start or before its end. It
// takes as long as that takes, or as ctx has. Errors are in Kubernetes' words.
func (p *Prober) Hook(ctx context.Context, t pod.Target, h *corev1.LifecycleHandler) error {
	failed := func(what string, err error) error {
		return fmt.Errorf("%s for Container %q in Pod %q failed - error: %w", what, t.Container.Name, pod.Format(t.Pod), err)
	}
	switch {
	case h.Exec != nil:
		var out output
		code, err := p.runtime.Exec(ctx, t.ID, container.ExecSpec{Command: h.Exec.Command, Stdout: &out, Stderr: &out})
		if err == nil && code != 0 {
			err = fmt.Errorf("command '%s' exited with %d: %s", strings.Join(h.Exec.Command, " "), code, out.String())
		}
		if err != nil {
			return fmt.Errorf("%w, message: %q", failed(fmt.Sprintf("Exec lifecycle hook (%v)", h.Exec.Command), err), out.String())
		}
		return nil
	case h.HTTPGet != nil:
		if err := request(ctx, t, h.HTTPGet); err != nil {
			return failed(fmt.Sprintf("HTTP lifecycle hook (%s)", h.HTTPGet.Path), err)
		}
		return nil
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
			return nil
		case <-ctx.Done():
			return failed(fmt.Sprintf("Sleep lifecycle hook (%d)", h.Sleep.Seconds), errors.New("container terminated before sleep hook finished"))
		}
	}
	// Kubernetes takes a tcpSocket here and can do nothing with it either.
	return fmt.Errorf("cannot run handler: invalid handler: %v", h)
}

// hooks is the client of HTTP hooks. It takes any certificate, and any answer.
var hooks = &http.Client{
	Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	CheckRedirect: httpprobe.RedirectChecker(false),
}

// request asks once, over HTTP too if what should speak HTTPS does not.
func request(ctx context.Context, t pod.Target, action *corev1.HTTPGetAction) error {
	r, err := httpprobe.NewRequestForHTTPGetAction(action, t.Container, t.Addr, "lifecycle")
	if err != nil {
		return err
	}
	err = do(r.WithContext(ctx))
	if err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		plain := r.Clone(ctx)
		plain.URL.Scheme = "http"
		plain.Header.Del("Authorization")
		if do(plain) == nil {
			return nil
		}
	}
	return err
}

func do(r *http.Request) error {
	response, err := hooks.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, outputMax)) // whatever it says
	return nil
}

package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

func start(t testing.TB) *gatewaytest.Server { return gatewaytest.Start(t, echo{}) }

// echo answers with what it was asked.
type echo struct{}

func (echo) ServeLog(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, o *corev1.PodLogOptions) {
	fmt.Fprintf(w, "log of %s/%s follow=%v\n", pod.Name, o.Container, o.Follow)
}

func (echo) ServeExec(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, o *corev1.PodExecOptions) {
	fmt.Fprintf(w, "exec in %s/%s %q\n", pod.Name, o.Container, o.Command)
}

func (echo) ServeAttach(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, o *corev1.PodAttachOptions) {
	fmt.Fprintf(w, "attach to %s/%s\n", pod.Name, o.Container)
}

// endlessBody is a body that goes on until stop.
func endlessBody() (body io.Reader, stop func()) {
	r, w := io.Pipe()
	go func() {
		for chunk := bytes.Repeat([]byte("x"), 64<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}()
	return r, func() { _ = r.Close() }
}

func (echo) ServePortForward(w http.ResponseWriter, _ *http.Request, pod *corev1.Pod, o *corev1.PodPortForwardOptions) {
	fmt.Fprintf(w, "forward to %s%v\n", pod.Name, o.Ports)
}

package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/apis/core/validation"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/door"
)

// streams are the sub-resources of a pod that its machine answers.
func streams(d *door.Door, s Streams) map[string]rest.Storage {
	return map[string]rest.Storage{
		"pods/log": &stream[core.PodLogOptions, corev1.PodLogOptions]{
			door: d, methods: []string{http.MethodGet},
			options: func() runtime.Object { return &core.PodLogOptions{} },
			prepare: func(pod *corev1.Pod, o *corev1.PodLogOptions) (err error) {
				in := &core.PodLogOptions{}
				if err := api.Scheme.Convert(o, in, nil); err != nil {
					return err
				}
				if errs := validation.ValidatePodLogOptions(in, false); len(errs) > 0 {
					return apierrors.NewInvalid(core.Kind("PodLogOptions"), pod.Name, errs)
				}
				o.Container, err = containerOf(pod, o.Container)
				return err
			},
			serve: s.ServeLog,
		},
		"pods/exec": &stream[core.PodExecOptions, corev1.PodExecOptions]{
			door: d, methods: []string{http.MethodGet, http.MethodPost},
			options: func() runtime.Object { return &core.PodExecOptions{} },
			prepare: func(pod *corev1.Pod, o *corev1.PodExecOptions) (err error) {
				if len(o.Command) == 0 {
					return apierrors.NewBadRequest("exec needs a command")
				}
				o.Container, err = containerOf(pod, o.Container)
				return err
			},
			serve: s.ServeExec,
		},
		"pods/attach": &stream[core.PodAttachOptions, corev1.PodAttachOptions]{
			door: d, methods: []string{http.MethodGet, http.MethodPost},
			options: func() runtime.Object { return &core.PodAttachOptions{} },
			prepare: func(pod *corev1.Pod, o *corev1.PodAttachOptions) (err error) {
				o.Container, err = containerOf(pod, o.Container)
				return err
			},
			serve: s.ServeAttach,
		},
		"pods/portforward": &stream[core.PodPortForwardOptions, corev1.PodPortForwardOptions]{
			door: d, methods: []string{http.MethodGet, http.MethodPost},
			options: func() runtime.Object { return &core.PodPortForwardOptions{} },
			prepare: func(*corev1.Pod, *corev1.PodPortForwardOptions) error { return nil },
			serve:   s.ServePortForward,
		},
	}
}

// stream is one of them; In and Out are its options inside and outside of
// Kubernetes' machinery.
type stream[In, Out any] struct {
	door    *door.Door
	methods []string
	options func() runtime.Object
	prepare func(*corev1.Pod, *Out) error
	serve   func(http.ResponseWriter, *http.Request, *corev1.Pod, *Out)
}

// New implements [rest.Storage].
func (s *stream[In, Out]) New() runtime.Object { return s.options() }

// Destroy implements [rest.Storage].
func (s *stream[In, Out]) Destroy() {}

// NewConnectOptions implements [rest.Connecter].
func (s *stream[In, Out]) NewConnectOptions() (runtime.Object, bool, string) {
	return s.options(), false, ""
}

// ConnectMethods implements [rest.Connecter].
func (s *stream[In, Out]) ConnectMethods() []string { return s.methods }

// Connect implements [rest.Connecter].
func (s *stream[In, Out]) Connect(ctx context.Context, name string, in runtime.Object, _ rest.Responder) (http.Handler, error) {
	o, err := s.door.Get(ctx, api.Key{Resource: "pods", Namespace: request.NamespaceValue(ctx), Name: name})
	if err != nil {
		return nil, err
	}
	pod := o.(*corev1.Pod)
	out := new(Out)
	if err := api.Scheme.Convert(in, out, nil); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if err := s.prepare(pod, out); err != nil {
		return nil, err
	}
	if pod.Spec.NodeName == "" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", name))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, pod, out) }), nil
}

// containerOf is the container that a client means.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var names, all []string
	for _, c := range pod.Spec.Containers {
		names = append(names, c.Name)
	}
	all = slices.Clone(names)
	for _, c := range pod.Spec.InitContainers {
		all = append(all, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		all = append(all, c.Name)
	}
	switch {
	case name == "" && len(names) == 1:
		return names[0], nil
	case name == "":
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(names, " ")))
	case !slices.Contains(all, name):
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s, choose one of: [%s]", name, pod.Name, strings.Join(all, " ")))
	}
	return name, nil
}

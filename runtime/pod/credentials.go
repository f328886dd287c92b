package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/credentialprovider/secrets"
	"k8s.io/kubernetes/pkg/util/parsers"

	"github.com/troupe-sh/troupe/runtime/container"
)

// Credentials are what a pod's secrets hold for an image, the most specific
// first; the zero Auth alone if they hold nothing. Secrets of other types count
// for nothing.
func Credentials(image string, held []*corev1.Secret) ([]container.Auth, error) {
	nobody := []container.Auth{{}}
	if len(held) == 0 {
		return nobody, nil
	}
	repository, _, _, err := parsers.ParseImageName(image)
	if err != nil {
		return nobody, nil // the runtime says what is wrong with it
	}
	var copies []corev1.Secret
	for _, s := range held {
		copies = append(copies, *s)
	}
	keyring, err := secrets.MakeDockerKeyring(copies, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return nobody, fmt.Errorf("read the pod's imagePullSecrets: %w", err)
	}
	found, ok := keyring.Lookup(repository)
	if !ok {
		return nobody, nil
	}
	var all []container.Auth
	for _, f := range found {
		all = append(all, container.Auth{Username: f.Username, Password: f.Password})
	}
	return all, nil
}

package pod

import (
	"fmt"
	"hash/fnv"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// longestID is what containerd takes.
const longestID = 76

// ContainerID is the name that the runtime knows a container by: the same for
// the same pod, container and attempt, so that what was begun before a crash is
// found after it.
func ContainerID(uid types.UID, name string, attempt uint32) string {
	id := fmt.Sprintf("%s.%s.%d", uid, name, attempt)
	if len(id) <= longestID && !strings.Contains(id, "--") {
		return id
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return fmt.Sprintf("%s.%016x.%d", uid, h.Sum64(), attempt)
}

// UIDOf is the pod of a container or sandbox, by its ID.
func UIDOf(id string) types.UID {
	uid, _, _ := strings.Cut(id, ".")
	return types.UID(uid)
}

package main

import (
	"errors"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/kubectl/pkg/cmd/auth"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// newAuth is kubectl's auth, whose reconcile speaks of a nameless resource
// where there are no roles.
func newAuth(f cmdutil.Factory, streams genericiooptions.IOStreams) *cobra.Command {
	cmd := auth.NewCmdAuth(f, streams)
	for _, c := range cmd.Commands() {
		if c.Name() == "reconcile" {
			c.Hidden = true
			c.Run = func(*cobra.Command, []string) {
				cmdutil.CheckErr(errors.New("this agent has no kinds Role and RoleBinding in rbac.authorization.k8s.io/v1" + kindsHere))
			}
		}
	}
	return cmd
}

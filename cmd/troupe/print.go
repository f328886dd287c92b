package main

import (
	"encoding/json"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"
)

// machine formats for scripts; "" and "wide" are for people.
const (
	formatJSON = "json"
	formatYAML = "yaml"
	formatWide = "wide"
)

// printMessages prints what the agent answered in a format for scripts.
func printMessages[M proto.Message](w io.Writer, format string, all []M) error {
	items := make([]json.RawMessage, 0, len(all))
	for _, m := range all {
		b, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
		if err != nil {
			return err
		}
		items = append(items, b)
	}
	return printValue(w, format, map[string]any{"items": items})
}

func printValue(w io.Writer, format string, v any) error {
	b, err := json.MarshalIndent(v, "", "    ")
	if err != nil {
		return err
	}
	switch format {
	case formatJSON:
		b = append(b, '\n')
	case formatYAML:
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
	default:
		return fmt.Errorf("-o %s: use %s or %s", format, formatJSON, formatYAML)
	}
	_, err = w.Write(b)
	return err
}

// printTable prints rows in columns, as kubectl does.
func printTable(w io.Writer, rows [][]string) error {
	t := printers.GetNewTabWriter(w)
	for _, r := range rows {
		for i, cell := range r {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

package law

import (
	"os"
	"testing"
)

// TestModule holds the module to every law.
func TestModule(t *testing.T) {
	s, err := Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range Laws {
		t.Run(l.Name, func(t *testing.T) {
			for _, wrong := range l.Check(s) {
				t.Error(wrong)
			}
		})
	}
}

// Package suite is what every implementation of the container runtime port
// must do, the fake included, and what tests of real ones stand in.
package suite

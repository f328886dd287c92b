// Package messages is what crosses machines and sockets: generated from the
// .proto files beside it, and nothing else.
package messages

//go:generate make -C .. generate

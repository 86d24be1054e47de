//go:build !linux

// Package netlink is empty on this system.
package netlink

// Package release holds what makes the repository's modules a release, and the
// tests of what importers get from one.
package release

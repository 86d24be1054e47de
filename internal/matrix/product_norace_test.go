//go:build !race

package matrix

// stride takes every combination.
const stride = 1

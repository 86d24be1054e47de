//go:build race

package matrix

// stride takes one combination of eleven, because the race detector makes each
// ten times as long. Eleven shares no factor with any number of values, so every
// pair of values still meets.
const stride = 11

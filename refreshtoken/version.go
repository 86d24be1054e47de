package refreshtoken

import (
	"cmp"
	"strings"
)

// A version is that of a client: numbers with dots between, and after a hyphen
// what makes it a pre-release (Semantic Versioning 2.0.0, §9).
type version struct {
	numbers    []string // without leading zeros
	preRelease string
}

// parseClient reads the first word of a ClientInstanceInfo, such as "yc/0.141.0" or
// "yc/v0.141.0-beta1 linux", as a product and its version (RFC 9110 §10.1.5).
func parseClient(info string) (product string, v version, ok bool) {
	word, _, _ := strings.Cut(info, " ")
	product, text, ok := strings.Cut(word, "/")
	if !ok || product == "" {
		return "", version{}, false
	}
	text, _, _ = strings.Cut(strings.TrimPrefix(text, "v"), "+") // build metadata does not order versions
	text, v.preRelease, _ = strings.Cut(text, "-")
	for n := range strings.SplitSeq(text, ".") {
		if n == "" || strings.Trim(n, "0123456789") != "" {
			return "", version{}, false
		}
		n = strings.TrimLeft(n, "0")
		v.numbers = append(v.numbers, n)
	}
	return product, v, true
}

// less orders versions. A number that is missing is 0, and a pre-release comes
// before its release; pre-releases of one release are not told apart.
func (v version) less(w version) bool {
	for i := range max(len(v.numbers), len(w.numbers)) {
		a, b := v.number(i), w.number(i)
		// Without leading zeros the longer number is the larger one, however many
		// digits it has.
		if c := cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)); c != 0 {
			return c < 0
		}
	}
	return v.preRelease != "" && w.preRelease == ""
}

func (v version) number(i int) string {
	if i < len(v.numbers) {
		return v.numbers[i]
	}
	return ""
}

// String is the version without leading zeros.
func (v version) String() string {
	numbers := make([]string, len(v.numbers))
	for i, n := range v.numbers {
		numbers[i] = cmp.Or(n, "0")
	}
	text := strings.Join(numbers, ".")
	if v.preRelease != "" {
		text += "-" + v.preRelease
	}
	return text
}

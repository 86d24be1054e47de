package refreshtoken

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Filter selects the refresh tokens that a listing returns. The conditions are
// joined by AND; the zero Filter selects every token.
//
// A value has 3 to 63 characters. It must not contain a double quote, a backslash or
// a control character, because the filter syntax cannot express them.
type Filter struct {
	// ClientID selects the tokens of an OAuth client, such as
	// "yc.oauth.public-sdk". Optional.
	ClientID string
	// ClientInstanceInfo selects the tokens of an application instance, such as
	// "yc/0.141.0". Optional.
	ClientInstanceInfo string
	// ProtectionLevels selects the tokens that have one of the levels, including
	// levels that this package does not know. Optional.
	ProtectionLevels []ProtectionLevel
}

// expression is the filter as the API takes it, in at most 1000 characters, and ""
// for the zero Filter. The error is an [*ArgumentError].
func (f Filter) expression() (string, error) {
	var terms []string
	for _, c := range []struct{ field, name, value string }{
		{"Filter.ClientID", "client_id", f.ClientID},
		{"Filter.ClientInstanceInfo", "client_instance_info", f.ClientInstanceInfo},
	} {
		if c.value == "" {
			continue
		}
		if err := checkFilterValue(c.field, c.value); err != nil {
			return "", err
		}
		terms = append(terms, c.name+"="+quote(c.value))
	}
	if len(f.ProtectionLevels) > 0 {
		term, err := f.levels()
		if err != nil {
			return "", err
		}
		terms = append(terms, term)
	}
	expr := strings.Join(terms, " AND ")
	if err := checkText("Filter", expr, maxFilter, "name fewer protection levels"); err != nil {
		return "", err
	}
	return expr, nil
}

func (f Filter) levels() (string, error) {
	quoted := make([]string, len(f.ProtectionLevels))
	for i, l := range f.ProtectionLevels {
		if err := checkFilterValue(fmt.Sprintf("Filter.ProtectionLevels[%d]", i), string(l)); err != nil {
			return "", err
		}
		quoted[i] = quote(string(l))
	}
	if len(quoted) == 1 {
		return "protection_level=" + quoted[0], nil
	}
	return "protection_level IN (" + strings.Join(quoted, ", ") + ")", nil
}

// String returns the filter in the syntax of the API:
//
//	client_instance_info="yc/0.141.0" AND protection_level IN ("NO_PROTECTION", "INSECURE_KEY_DPOP")
//
// If a value is invalid, String returns a text that no server accepts as a filter.
func (f Filter) String() string {
	expr, err := f.expression()
	if err != nil {
		return "!(" + err.Error() + ")"
	}
	return expr
}

func (f Filter) clone() Filter {
	f.ProtectionLevels = slices.Clone(f.ProtectionLevels)
	return f
}

// quote needs no escapes: [checkFilterValue] rejects what would call for one.
func quote(s string) string { return `"` + s + `"` }

func checkFilterValue(field, s string) error {
	if !utf8.ValidString(s) {
		return &ArgumentError{field, "is not valid UTF-8"}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r == '"' || r == '\\' || unicode.IsControl(r) }) {
		return &ArgumentError{field, "has a double quote, a backslash or a control character, " +
			"which a filter cannot express: list without this condition and compare the tokens"}
	}
	if n := utf8.RuneCountInString(s); n < minFilterValue || n > maxFilterValue {
		return &ArgumentError{field, fmt.Sprintf("has %d characters, but a value in a filter has %d to %d: "+
			"list without this condition and compare the tokens", n, minFilterValue, maxFilterValue)}
	}
	return nil
}

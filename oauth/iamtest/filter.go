package iamtest

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ycauth/ycauth-go/oauth/iamtest/internal/iamapi"
)

// A filter is a parsed filter expression of RefreshToken.List: conditions that a
// token has to meet all of.
type filter []condition

type condition struct {
	field  string
	values []string // one of them
}

const (
	fieldClientID   = "client_id"
	fieldInfo       = "client_instance_info"
	fieldProtection = "protection_level"
)

func (f filter) match(t *refreshToken) bool {
	for _, c := range f {
		var v string
		switch c.field {
		case fieldClientID:
			v = t.grant.client
		case fieldInfo:
			v = t.grant.info
		case fieldProtection:
			v = string(t.grant.protection)
		}
		if !slices.Contains(c.values, v) {
			return false
		}
	}
	return true
}

// parseFilter reads an expression as the API's documentation describes it:
//
//	client_instance_info="x" AND protection_level IN ("INSECURE_KEY_DPOP", "SECURE_KEY_DPOP")
//
// The length of values (3 to 63 characters) is checked; the regular expression
// that the documentation gives for them is not, because the service's own client
// identifiers and versions ("yc.oauth.public-sdk", "yc/0.141.0") do not match it.
func parseFilter(s string) (filter, *iamapi.Status) {
	if s == "" {
		return nil, nil
	}
	p := filterParser{s}
	var f filter
	for {
		c, err := p.condition()
		if err != nil {
			return nil, err
		}
		f = append(f, c)
		if p.space(); p.rest == "" {
			return f, nil
		}
		if !p.word("AND") {
			return nil, invalid("filter", "AND or the end is expected after a condition")
		}
	}
}

type filterParser struct{ rest string }

func (p *filterParser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

// take takes a text off the rest.
func (p *filterParser) take(text string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.rest, text)
	if ok {
		p.rest = rest
	}
	return ok
}

// word takes a keyword, which must not go on with a letter.
func (p *filterParser) word(w string) bool {
	if p.name() != w {
		return false
	}
	p.rest = p.rest[len(w):]
	return true
}

// name is the identifier that comes next.
func (p *filterParser) name() string {
	p.space()
	end := strings.IndexFunc(p.rest, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	if end < 0 {
		return p.rest
	}
	return p.rest[:end]
}

func (p *filterParser) condition() (condition, *iamapi.Status) {
	c := condition{field: p.name()}
	switch c.field {
	case fieldClientID, fieldInfo, fieldProtection:
	default:
		return c, invalid("filter", "a condition begins with client_id, client_instance_info or protection_level")
	}
	p.rest = p.rest[len(c.field):]
	if p.take("=") {
		v, err := p.value(c.field)
		c.values = []string{v}
		return c, err
	}
	if c.field != fieldProtection {
		return c, invalid("filter", "the operator of %s is =", c.field)
	}
	if !p.word("IN") || !p.take("(") {
		return c, invalid("filter", "the operator of %s is = or IN (...)", c.field)
	}
	for {
		v, err := p.value(c.field)
		if err != nil {
			return c, err
		}
		c.values = append(c.values, v)
		if p.take(")") {
			return c, nil
		}
		if !p.take(",") {
			return c, invalid("filter", "a comma or a closing parenthesis is expected")
		}
	}
}

func (p *filterParser) value(field string) (string, *iamapi.Status) {
	if !p.take(`"`) {
		return "", invalid("filter", "a value in double quotes is expected")
	}
	end := strings.IndexByte(p.rest, '"')
	if end < 0 {
		return "", invalid("filter", "a value has no closing quote")
	}
	v := p.rest[:end]
	p.rest = p.rest[end+1:]
	if strings.ContainsFunc(v, func(r rune) bool { return r == '\\' || r < ' ' || r == 0x7f || r == utf8.RuneError }) {
		return "", invalid("filter", "a value has a backslash, a control character or is not UTF-8")
	}
	if n := utf8.RuneCountInString(v); n < 3 || n > 63 {
		return "", invalid("filter", "a value has %d characters, and needs 3 to 63", n)
	}
	if field == fieldProtection && !ProtectionLevel(v).known() {
		return "", invalid("filter", "a protection level is unknown")
	}
	return v, nil
}

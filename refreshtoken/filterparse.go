package refreshtoken

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// ParseFilter reads a filter expression as the documentation of RefreshToken.List
// describes it, for programs that take one from their users:
//
//	client_id="yc.oauth.public-sdk" AND protection_level IN ("NO_PROTECTION")
//
// Conditions on client_id, client_instance_info and protection_level may come in
// any order, each at most once; white space is free. The empty expression is the
// zero Filter. [Filter.Expression] of the result is the expression in its usual
// form.
//
// The error is an [*ArgumentError] that says where the expression goes wrong; it
// does not repeat the expression.
func ParseFilter(expr string) (Filter, error) {
	if err := checkText("filter", expr, maxFilter, "use fewer conditions or levels"); err != nil {
		return Filter{}, err
	}
	p := filterParser{in: expr}
	f, err := p.filter()
	if err != nil {
		return Filter{}, err
	}
	if _, err := f.Expression(); err != nil {
		return Filter{}, err
	}
	return f, nil
}

// filterParser reads one expression:
//
//	filter = [ term *( "AND" term ) ]
//	term   = field "=" string / "protection_level" "IN" "(" string *( "," string ) ")"
//	string = DQUOTE *char DQUOTE
type filterParser struct {
	in  string
	pos int // in bytes
}

func (p *filterParser) filter() (Filter, error) {
	var f Filter
	p.space()
	if p.pos == len(p.in) {
		return f, nil
	}
	seen := map[string]bool{}
	for {
		if err := p.term(&f, seen); err != nil {
			return Filter{}, err
		}
		p.space()
		if p.pos == len(p.in) {
			return f, nil
		}
		start := p.pos
		if p.word() != "AND" {
			p.pos = start
			return Filter{}, p.wrong("want AND or the end")
		}
	}
}

func (p *filterParser) term(f *Filter, seen map[string]bool) error {
	p.space()
	start := p.pos
	field := p.word()
	if seen[field] {
		p.pos = start
		return p.wrong("a field comes twice; for several protection levels write protection_level IN (…)")
	}
	seen[field] = true
	switch field {
	case filterClientID:
		return p.equals(&f.ClientID)
	case filterClientInstanceInfo:
		return p.equals(&f.ClientInstanceInfo)
	case filterProtectionLevel:
		return p.level(f)
	}
	p.pos = start
	return p.wrong("want one of the fields client_id, client_instance_info, protection_level")
}

func (p *filterParser) equals(value *string) error {
	if !p.take('=') {
		return p.wrong("want =")
	}
	s, err := p.quoted()
	*value = s
	return err
}

func (p *filterParser) level(f *Filter) error {
	p.space()
	start := p.pos
	if p.word() == "IN" {
		return p.list(f)
	}
	p.pos = start
	if !p.take('=') {
		return p.wrong("want = or IN")
	}
	s, err := p.quoted()
	f.ProtectionLevels = []ProtectionLevel{ProtectionLevel(s)}
	return err
}

func (p *filterParser) list(f *Filter) error {
	if !p.take('(') {
		return p.wrong("want ( after IN")
	}
	for {
		s, err := p.quoted()
		if err != nil {
			return err
		}
		f.ProtectionLevels = append(f.ProtectionLevels, ProtectionLevel(s))
		if p.take(')') {
			return nil
		}
		if !p.take(',') {
			return p.wrong("want , or )")
		}
	}
}

// quoted reads a value between double quotes. An empty one is rejected here,
// because to a [Filter] it would mean no condition at all.
func (p *filterParser) quoted() (string, error) {
	if !p.take('"') {
		return "", p.wrong("want a value in double quotes")
	}
	n := strings.IndexByte(p.in[p.pos:], '"')
	if n < 0 {
		return "", p.wrong("the double quote is not closed")
	}
	if n == 0 {
		return "", p.wrong("the value is empty")
	}
	s := p.in[p.pos : p.pos+n]
	p.pos += n + 1
	return s, nil
}

// word reads a name or keyword; "" where there is none.
func (p *filterParser) word() string {
	start := p.pos
	for p.pos < len(p.in) && isWord(p.in[p.pos]) {
		p.pos++
	}
	return p.in[start:p.pos]
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// take skips white space and then c, if c is there.
func (p *filterParser) take(c byte) bool {
	p.space()
	if p.pos < len(p.in) && p.in[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *filterParser) space() {
	for p.pos < len(p.in) && strings.IndexByte(" \t\r\n", p.in[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *filterParser) wrong(want string) error {
	at := utf8.RuneCountInString(p.in[:p.pos]) + 1
	return &ArgumentError{"filter", fmt.Sprintf("is malformed at character %d: %s", at, want)}
}

package dpop

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
)

// normalized is a URL as it was given and as it stands in a proof.
type normalized struct{ raw, htu string }

// normalize keeps the last result: a program asks for proofs for one token
// endpoint over and over.
func (p *Prover) normalize(raw string) (string, error) {
	if n := p.lastURL.Load(); n != nil && n.raw == raw {
		return n.htu, nil
	}
	htu, err := normalizeURL(raw)
	if err != nil {
		return "", err
	}
	p.lastURL.Store(&normalized{raw, htu})
	return htu, nil
}

// normalizeURL gives the htu of a request: "The HTTP target URI […] of the
// request to which the JWT is attached, without query and fragment parts" (RFC
// 9449 §4.2), normalised by the rules that §4.3 recommends to verifiers:
// syntax-based (RFC 3986 §6.2.2) and scheme-based (§6.2.3). A server that
// compares octets then still agrees with one that normalises.
func normalizeURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("dpop: the URL of the request does not parse")
	}
	scheme := strings.ToLower(u.Scheme)
	if scheme != "https" && scheme != "http" {
		return "", errors.New("dpop: the URL of the request is not an absolute http or https URL")
	}
	if u.User != nil {
		return "", errors.New("dpop: the URL of the request has user information")
	}
	host, err := normalizeHost(u, scheme)
	if err != nil {
		return "", err
	}
	path := removeDotSegments(normalizeEscapes(u.EscapedPath()))
	if path == "" {
		path = "/" // §6.2.3: an empty path is "/" in http
	}
	return scheme + "://" + host + path, nil
}

func normalizeHost(u *url.URL, scheme string) (string, error) {
	host := strings.ToLower(u.Hostname())
	if host == "" {
		return "", errors.New("dpop: the URL of the request has no host")
	}
	if u.Host[0] == '[' || strings.Contains(host, ":") {
		// "An HTTP client ... MUST remove any ZoneID attached to an outgoing
		// URI, as it has only local significance at the sending host" (RFC
		// 6874 §4): the server does not see it.
		host, _, _ = strings.Cut(host, "%")
		// url.Parse lets colons without brackets pass unless GODEBUG
		// urlstrictcolons is set, and in older releases anything within brackets.
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || u.Host[0] != '[' {
			return "", errors.New("dpop: the host of the URL is neither a name nor an IPv6 address in brackets")
		}
		host = "[" + host + "]"
	} else if !isRegName(host) {
		return "", errors.New("dpop: the host of the URL has characters outside a DNS name or an IP address: write international names in their ASCII form")
	}
	port := u.Port()
	if port == "" || (scheme == "https" && port == "443") || (scheme == "http" && port == "80") {
		return host, nil
	}
	return host + ":" + port, nil
}

// isRegName reports whether host is a reg-name of RFC 3986 §3.2.2 without
// percent-encodings, as every DNS name and IPv4 address is.
func isRegName(host string) bool {
	for i := range len(host) {
		if c := host[i]; !isUnreserved(c) && strings.IndexByte("!$&'()*+,;=", c) < 0 {
			return false
		}
	}
	return true
}

// normalizeEscapes writes percent-encodings with upper-case hex digits
// (§6.2.2.1) and decodes those of unreserved characters (§6.2.2.2).
func normalizeEscapes(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			b.WriteByte(path[i])
			continue
		}
		c := unhex(path[i+1])<<4 | unhex(path[i+2])
		if isUnreserved(c) {
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return b.String()
}

// unhex is only given hex digits: url.Parse rejects any other escape.
func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// removeDotSegments is the algorithm of RFC 3986 §5.2.4 for absolute paths.
func removeDotSegments(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "") // the path ends in a slash
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

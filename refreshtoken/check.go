package refreshtoken

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ycauth/ycauth-go/internal/tokenapi"
)

// Limits of the protobuf definitions, in characters (yandex/cloud/iam/v1,
// refresh_token_service.proto). They are checked here because the server's response
// to a longer value names the field at best, and never the remedy.
const (
	maxID                 = 50 // subject_id, client_id, refresh_token_id
	maxPageSize           = tokenapi.MaxPageSize
	maxPageToken          = 2000
	maxFilter             = 1000
	maxRefreshToken       = 1000
	maxClientInstanceInfo = 1000
)

// Lengths that the documentation of RefreshToken.List gives for a value in a filter.
// Its regular expression, [a-zA-Z][_-a-zA-Z0-9]{1,61}[a-z0-9], is not enforced. In it
// "_-a" is a range, so that most lower-case letters do not match, and neither do the
// documented values: INSECURE_KEY_DPOP ends with a capital letter, and
// yc.oauth.public-sdk and yc/0.141.0 have dots and slashes.
const (
	minFilterValue = 3
	maxFilterValue = 63
)

// checkText rejects what no field of the API can hold. The remedy follows the
// reason.
func checkText(field, s string, most int, remedy string) error {
	if !utf8.ValidString(s) {
		return &ArgumentError{field, "is not valid UTF-8"}
	}
	if n := utf8.RuneCountInString(s); n > most {
		return &ArgumentError{field, fmt.Sprintf("has %d characters, but the API takes %d at most: %s", n, most, remedy)}
	}
	return nil
}

// isUUID reports whether s is written as RFC 9562 §4 writes a UUID.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// maxOperationID is far above the length of any ID in the cloud. The API states
// no limit, but the ID becomes a part of a URL.
const maxOperationID = 256

// wrongOperationID says why an ID must not become a segment of a path; "" when it
// may. An ID comes from outside, and a request carries credentials, so it must not
// lead to another resource or to another method: {id}:cancel is one of the operation
// service. The IDs of the cloud are letters and digits.
func wrongOperationID(id string) string {
	switch {
	case id == "":
		return "is empty"
	case len(id) > maxOperationID:
		return fmt.Sprintf("is longer than %d bytes", maxOperationID)
	case strings.Trim(id, operationIDCharacters) != "":
		return "has a character other than ASCII letters, digits, - and _"
	}
	return ""
}

const operationIDCharacters = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"

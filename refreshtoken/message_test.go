package refreshtoken

import (
	"slices"
	"strings"
	"testing"
	"unicode"
)

const (
	someID    = "ajeb0f3k7u1q9d5s2n8p"
	anotherID = "aje9d5s2n8pb0f3k7u1q"
)

// Messages that say that the refresh token with someID is missing.
var missingMessages = []string{
	"there is no such refresh token",
	"There is no such refresh token.",
	"no such refresh token",
	"No such refresh token: ajeb0f3k7u1q9d5s2n8p",
	"no such refresh token was found",
	"no such token exists",
	"Refresh token not found",
	"Refresh token not found.",
	"refresh token: not found",
	"Refresh token not found: ajeb0f3k7u1q9d5s2n8p",
	"Refresh token not found (id: ajeb0f3k7u1q9d5s2n8p)",
	"Not found: refresh token ajeb0f3k7u1q9d5s2n8p",
	"RefreshToken ajeb0f3k7u1q9d5s2n8p not found",
	"RefreshToken 'ajeb0f3k7u1q9d5s2n8p' not found!",
	`Refresh token with id "ajeb0f3k7u1q9d5s2n8p" not found.`,
	"Refresh token with ID ajeb0f3k7u1q9d5s2n8p was not found",
	"Refresh token (id=ajeb0f3k7u1q9d5s2n8p) is not found",
	"refresh token [id: ajeb0f3k7u1q9d5s2n8p] does not exist",
	"refresh-token «ajeb0f3k7u1q9d5s2n8p» doesn't exist",
	"refresh_token ajeb0f3k7u1q9d5s2n8p doesn’t exist",
	"Token ajeb0f3k7u1q9d5s2n8p not found",
	"Token not found",
	"REFRESH_TOKEN_NOT_FOUND",
	"refresh_token_id: refresh_token not found",
	"refreshTokenId: refresh token ajeb0f3k7u1q9d5s2n8p was not found",
	"the requested refresh token has not been found",
	"The specified refresh token wasn't found",
	"No refresh token with that ID exists",
	"There is no refresh token with ID ajeb0f3k7u1q9d5s2n8p",
	"There is no refresh token with such ID",
	"Refresh tokens not found",
	"Unknown refresh token",
	"unknown refresh token ajeb0f3k7u1q9d5s2n8p",
	"the refresh token is unknown",
	"refresh token does not exist anymore",
	"refresh token not exist anymore",
	"The refresh token does not exist any longer",
	"the refresh token no longer exists",
	"The refresh token has expired",
	"the refresh token is expired",
	"refresh token expired",
	"this refresh token was revoked",
	"the refresh token has already been revoked",
	"refresh token already revoked",
	"refresh token REDACTED has expired or been revoked",
	"refresh token not found or already revoked",
	"the refresh token was not found, or has expired",
	"Refresh token not found. It has expired or been revoked.",
	"refresh token not found; it was revoked",
	"NOT_FOUND: refresh token not found",
	"NOT_FOUND: Refresh token ajeb0f3k7u1q9d5s2n8p not found.",
	"Not found: the refresh token was revoked",
}

// Messages that name a token by what may be the ID of something else, so that they say
// nothing where the ID of the token is not known.
var missingByIDMessages = []string{
	"No refresh token found for ID ajeb0f3k7u1q9d5s2n8p",
	"no refresh token for ajeb0f3k7u1q9d5s2n8p",
	"no such refresh token by ID ajeb0f3k7u1q9d5s2n8p",
	"refresh token not found for ajeb0f3k7u1q9d5s2n8p",
}

// Messages that do not: about something else, about something that cannot be done, or in
// words of which the meaning is not certain.
var otherMessages = []string{
	"",
	"not found",
	"Not Found",
	"NOT_FOUND",
	"refresh",
	"refresh token",
	"the refresh token",
	"ajeb0f3k7u1q9d5s2n8p",
	"ajeb0f3k7u1q9d5s2n8p not found",
	"it was not found",
	"no refresh token",
	"there is no refresh token",
	"The refresh token could not be revoked",
	"this refresh token cannot be revoked",
	"the refresh token can't be revoked",
	"unable to find the refresh token",
	"the refresh token could not be found",
	"the refresh token may have expired",
	"the refresh token must not be revoked",
	"Cannot find: no refresh token was given",
	"no refresh token was given",
	"refresh token not given",
	"refresh token ID is missing",
	"refresh token is missing",
	"refresh token ID not found",
	"refresh token was found",
	"refresh token found",
	"refresh token exists",
	"the refresh token is not expired",
	"the refresh token isn't expired",
	"refresh token not expired",
	"the refresh token was not revoked",
	"refresh token not revoked: not found",
	"the refresh token has not been revoked",
	"ID token not found",
	"id_token not found",
	"the ID token does not exist",
	"IAM token not found",
	"access token not found",
	"page token not found",
	"token REDACTED not found",
	"refresh token " + anotherID + " not found",
	"RefreshToken aje1 not found",
	"Operation fdv123 not found",
	"the operation of the refresh token was not found",
	"the subject of refresh token ajeb0f3k7u1q9d5s2n8p was not found",
	"UserAccount ajeb0f3k7u1q9d5s2n8p not found",
	"the organization of the caller was not found",
	"refresh token service not found",
	"RefreshTokenService not found",
	"no such method: RefreshToken.Revoke",
	"no such client has a refresh token",
	"Refresh token not found in the organization",
	"Refresh token not found. The service account does not exist.",
	"Refresh token not found? No.",
	"n't found: refresh token " + someID,
	"tokenn't exist",
	"the refresh token couldn't be found",
	"refresh token не найден",
	"jeton not found",
	"token token token",
	"refresh token \u200bnot found",
	"refresh token not found" + strings.Repeat(" or revoked", 100) + " operation",
	"NOT_FOUND: not found",
	"NOT_FOUND: organization not found",
	"NOT_FOUND: NOT_FOUND: refresh token not found",
}

func TestMissingMessages(t *testing.T) {
	for _, m := range missingMessages {
		if r := (question{targetID, someID}).read(m); !r.missing || r.against || r.unknown {
			t.Errorf("%q is not understood: %+v", m, r)
		}
		if r := (question{kind: targetToken}).read(m); !r.missing {
			t.Errorf("%q is not understood of a token without an ID: %+v", m, r)
		}
	}
	for _, m := range missingByIDMessages {
		if r := (question{targetID, someID}).read(m); !r.missing {
			t.Errorf("%q is not understood: %+v", m, r)
		}
		if r := (question{kind: targetToken}).read(m); r.missing {
			t.Errorf("%q says that a token without an ID is missing", m)
		}
	}
	for _, m := range []string{
		"refresh token oauth2-client-not-found not found", "refresh token OAUTH2_CLIENT_4711 not found",
		"no such token: oauth2serviceaccount", "no such token: ServiceAccount4711", "refresh token oauth2-federation-1 not found",
	} {
		if r := (question{kind: targetToken}).read(m); r.missing {
			t.Errorf("%q says that a token without an ID is missing", m)
		}
	}
	for _, m := range otherMessages {
		if r := (question{targetID, someID}).read(m); r.missing {
			t.Errorf("%q says that the token is missing", m)
		}
	}
}

// TestMessageAgainstDetails: a message that is about something else, or in another alphabet,
// is believed more than the details, and one that is not understood is not.
func TestMessageAgainstDetails(t *testing.T) {
	for m, against := range map[string]bool{
		"": false, "not found": false, "x": false, "refresh token не найден": true, "учётная запись не найдена": true, "nicht gefunden": false, "no refresh token was given": false,
		"the organization of the caller was not found": true, "UserAccounts not found": true, "Services not found": true,
		"ID token not found": true, "refresh token was found": true, "the refresh token is not expired": true,
		"the refresh token cannot be revoked": true, "the refresh token couldn't be revoked": true, "the refresh token couldn’t be found": true, "the subject of the token was not found": true,
	} {
		if r := (question{targetID, someID}).read(m); r.against != against {
			t.Errorf("%q: got %+v", m, r)
		}
	}
	for word := range missingWords {
		if isOther(word) {
			t.Errorf("%q names a token and something else", word)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range append(slices.Clone(missingMessages), otherMessages...) {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m string) {
		for _, q := range []question{{targetID, someID}, {kind: targetToken}} {
			r := q.read(m)
			if r.missing && (r.against || r.unknown) {
				t.Fatalf("%q: %+v", m, r)
			}
			if !r.missing {
				continue
			}
			words := strings.FieldsFunc(strings.ToLower(m), func(r rune) bool { return !unicode.IsLetter(r) })
			has := func(some ...string) bool {
				return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(some, w) })
			}
			if !has("token", "tokens", "refreshtoken", "refreshtokens") || !has("not", "doesn", "don", "didn", "isn", "wasn", "weren", "aren", "hasn", "haven", "no", "unknown", "expired", "revoked") {
				t.Fatalf("%q says nothing of the kind", m)
			}
			if has("can", "cannot", "could", "organization", "account", "operation", "access") {
				t.Fatalf("%q says something else", m)
			}
			for _, longer := range []string{m + " of the organization", "the operation: " + m, m + " cannot", "x " + m} {
				if q.read(longer).missing {
					t.Fatalf("%q says that the token is missing", longer)
				}
			}
		}
	})
}

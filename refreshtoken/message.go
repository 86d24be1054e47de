package refreshtoken

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/ycauth/ycauth-go/internal/redact"
)

// A reading is what a text of the server says about the refresh token.
type reading struct {
	missing bool // that it is missing, and nothing else
	against bool // something else about it, or that something else is missing
	unknown bool // something in words that are not known here
}

// The sentences that say that a refresh token is missing, in lower case, without quotes
// and brackets. An ID is #, and a credential that was taken out is *. Every other sentence
// is no evidence: that a token "could not be revoked", "is not expired" or "was not given"
// consists of nearly the same words. There is no modal verb in these.
//
// The ID of the token itself may follow "for" or "by" as well. Where that ID is not known,
// it could be of what the token belongs to: "no refresh token found for #".
var (
	missingByID    = missingSentences(`with|for|by`)
	missingByToken = missingSentences(`with`)
)

func missingSentences(before string) *regexp.Regexp {
	const (
		aux   = `(?:(?:is|are|was|were|has|have|been|already) )*`
		more  = `(?: any ?more| any longer)?`
		found = `(?:` + aux + `not (?:be |been )?found` + more +
			`|(?:does|do|did) not exist` + more + `|not exists?` + more + `|no longer exists?` +
			`|` + aux + `unknown|` + aux + `(?:expired|revoked))`
		pred = found + `(?:(?: ,)?(?: (?:or|and))? ` + found + `)*`
		// "ID token" is another token, so that "id" never comes before this.
		kind = `(?:(?:refresh tokens?|refreshtokens?)(?: \*)?|tokens?)`
	)
	id := `(?: (?:(?:` + before + `) )?(?:(?:the|this|that|such) )?(?:id )?(?:: )?#| with (?:the|this|that|such|requested|specified|provided) id)`
	var (
		noun = `(?:(?:the|this|that|a|an|any|your|requested|specified|provided) )*` + kind + id + `?`
		is   = `(?:there (?:is|are|was|were) )?`
		some = ` (?:` + aux + `found|exists?)` + id + `?`
		one  = `(?:` + noun + `(?: :)? ` + pred + id + `?` +
			`|` + is + `no such ` + kind + id + `?(?:` + some + `)?` +
			`|` + is + `no ` + kind + `(?:` + id + `?` + some + `|` + id + `)` +
			`|(?:an )?unknown ` + kind + id + `?` +
			`|not found(?: :)? ` + noun + `)`
		field = `(?:not found : )?(?:(?:refresh token id|refreshtokenid|refresh token|refreshtoken) : )?`
	)
	return regexp.MustCompile(`^` + field + one + `(?: [.;](?: (?:` + one + `|it ` + pred + `))?)*$`)
}

// missingWords are those of the sentences above.
var missingWords = wordSet("a already an and any anymore are be been by did do does exist exists expired for found has have id is it longer more " +
	"no not or provided refresh refreshtoken refreshtokenid refreshtokens requested revoked specified such that the there this token tokens unknown was were with your")

// otherWords, also at the end of a longer word, name something else that can be missing,
// or say something else of a refresh token. They are evidence against everything else in
// an error.
var otherWords = strings.Fields("access account api application certificate client cloud cluster cookie device endpoint federation folder " +
	"grant group handler host iam identity instance key member method operation organization organisation page path permission project provider role " +
	"route secret server service session subject tenant url user " +
	"can cannot cant could couldnt denied failed forbidden invalid malformed may might missing must required should unable")

func wordSet(words string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// notContracted is "n't", as in "doesn't exist".
var notContracted = regexp.MustCompile(`(?i)\b(is|are|was|were|has|have|had|do|does|did|ca|could|should|would|might|must|need)n['’]t\b`)

// punctuation stands by itself in a sentence, or not at all.
var punctuation = strings.NewReplacer(
	":", " : ", ",", " , ", ";", " ; ", "!", " . ",
	`"`, " ", "'", " ", "`", " ", "(", " ", ")", " ", "[", " ", "]", " ", "<", " ", ">", " ", "=", " ",
	"\u2018", " ", "\u2019", " ", "\u201c", " ", "\u201d", " ", "«", " ", "»", " ")

// read reads a text of the server, such as "Refresh token with ID 'aje1' not found."
func (q question) read(text string) reading {
	var r reading
	var sentence []string
	names := false // the refresh token, or a token
	for word := range strings.FieldsSeq(punctuation.Replace(notContracted.ReplaceAllString(text, "$1 not"))) {
		word, stop := strings.CutSuffix(word, ".")
		switch lower := strings.ToLower(word); {
		case word == "":
		case q.isID(word) && !missingWords[lower] && !slices.Contains(otherWords, lower):
			sentence = append(sentence, "#")
		case lower == strings.ToLower(redact.Mark):
			sentence = append(sentence, "*")
		case strings.Trim(lower, ":,;") == "":
			sentence = append(sentence, lower)
		default:
			for part := range strings.FieldsFuncSeq(lower, func(r rune) bool { return r == '_' || r == '-' }) {
				before := ""
				if len(sentence) > 0 {
					before = sentence[len(sentence)-1]
				}
				sentence = append(sentence, part)
				isToken := strings.HasPrefix(part, "token") || strings.HasPrefix(part, "refreshtoken")
				names = names || isToken
				r.unknown = r.unknown || !missingWords[part]
				r.against = r.against || isOther(part) || isToken && before == "id" || isForeign(part)
			}
		}
		if stop {
			sentence = append(sentence, ".")
		}
	}
	missing := missingByID
	if q.kind == targetToken {
		missing = missingByToken
	}
	r.missing = !r.against && missing.MatchString(strings.Join(sentence, " "))
	r.against = r.against || names && !r.unknown && !r.missing
	return r
}

func isOther(word string) bool {
	return slices.ContainsFunc(otherWords, func(other string) bool {
		return strings.HasSuffix(word, other) || strings.HasSuffix(word, other+"s")
	})
}

// isForeign reports whether a word is in no English text. What it says is not known, so it
// may be that something else is missing.
func isForeign(word string) bool {
	return strings.ContainsFunc(word, func(r rune) bool { return r > unicode.MaxASCII && unicode.IsLetter(r) })
}

// minForeignID is the least length of an ID in a message about a token whose ID is not
// known: those of the cloud have 20 characters.
const minForeignID = 16

// isID reports whether a word is the ID of the refresh token. A token that was given by
// itself can have any: a UUID, or letters and digits as the cloud has them. Words that are
// joined by - or _ are no ID, even with a digit in them.
func (q question) isID(word string) bool {
	switch q.kind {
	case targetID:
		return word == q.id
	case targetToken:
		const digits = "0123456789"
		return isUUID(word) || len(word) >= minForeignID && strings.ContainsAny(word, digits) &&
			strings.Trim(word, operationIDCharacters) == "" && !strings.ContainsAny(word, "-_") &&
			!isOther(strings.TrimRight(strings.ToLower(word), digits))
	}
	return false
}

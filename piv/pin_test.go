package piv

import (
	"crypto"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pinCard is a card whose key needs the PIN, and a key with a prompt.
func pinCard(t *testing.T, policy PINPolicy, prompt Prompt) (*fakeCard, *Key) {
	t.Helper()
	card := newFakeCard(1).with(SlotAuthentication, policy, TouchPolicyNever)
	s, _ := fakeSystem(card)
	k := mustOpen(t, s, Options{Prompt: prompt})
	t.Cleanup(func() { k.Close() })
	card.commands()
	return card, k
}

func wantWrongPIN(t *testing.T, err error, tries int, notSent bool) {
	t.Helper()
	var wrong *WrongPINError
	if !errors.As(err, &wrong) || wrong.TriesLeft != tries || wrong.NotSent != notSent {
		t.Fatalf("%v; want a wrong PIN, %d tries left, not sent %v", err, tries, notSent)
	}
}

func TestWrongPINIsNotSentTwice(t *testing.T) {
	prompt := person("111111", "111111", "222222", "111111")
	card, k := pinCard(t, PINPolicyOnce, prompt)
	wantWrongPIN(t, trySign(t.Context(), k), 2, false)
	if got := card.commands(); got != "tries factory verify" {
		t.Errorf("sent %s", got)
	}
	wantWrongPIN(t, trySign(t.Context(), k), 2, true)
	if got := card.commands(); got != "" {
		t.Errorf("sent %s", got)
	}
	if len(prompt.asked) != 2 || prompt.asked[1].TriesLeft != 2 {
		t.Errorf("asked %+v", prompt.asked)
	}
	// Somebody set a new PIN, which happens to be the one that was wrong.
	card.change(func() { card.pin, card.tries = "111111", 3 })
	k.sys.reader(fakeReader).ifFree(k.sys.reader(fakeReader).drop)
	wantWrongPIN(t, trySign(t.Context(), k), 2, false) // 222222
	card.change(func() { card.tries = 3 })
	k.sys.reader(fakeReader).ifFree(k.sys.reader(fakeReader).drop)
	mustSign(t, k)
}

func TestRightPINForgetsWrongOnes(t *testing.T) {
	card, k := pinCard(t, PINPolicyAlways, person("111111", "123456", "111111", "123456"))
	wantWrongPIN(t, trySign(t.Context(), k), 2, false)
	mustSign(t, k)
	card.change(func() { card.pin = "111111" })
	mustSign(t, k)
}

func TestPINsThatCannotBeRight(t *testing.T) {
	for _, pin := range []string{"", "12345", "123456789", "пинпи"} {
		t.Run(pin, func(t *testing.T) {
			card, k := pinCard(t, PINPolicyOnce, person(pin))
			wantWrongPIN(t, trySign(t.Context(), k), 3, true)
			if got := card.commands(); strings.Contains(got, "verify") {
				t.Errorf("sent %s", got)
			}
			mustSign(t, k)
		})
	}
}

func TestBlockedPIN(t *testing.T) {
	prompt := person()
	card, k := pinCard(t, PINPolicyOnce, prompt)
	card.change(func() { card.tries = 0 })
	wantError(t, trySign(t.Context(), k), ErrPINBlocked)
	if len(prompt.asked) != 0 {
		t.Error("asked for a PIN that is blocked")
	}
	card.change(func() { card.tries = 3 }) // by the PUK
	mustSign(t, k)
}

// TestPINIsForgotten looks into what a signature leaves behind.
func TestPINIsForgotten(t *testing.T) {
	for _, test := range []struct {
		name    string
		pin     string
		sent    string
		another func(*fakeCard) // what another program does while the prompt waits
	}{
		{"right", "123456", "tries factory open serial info tries verify sign", func(*fakeCard) {}},
		{"wrong", "111111", "tries factory open serial info tries verify", func(*fakeCard) {}},
		{"not sent", "1", "tries factory open serial info tries", func(*fakeCard) {}},
		{"not needed any more", "123456", "tries factory open serial info tries sign", func(c *fakeCard) { c.verified = true }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				prompt := person(test.pin)
				prompt.wait = time.Second
				card, k := pinCard(t, PINPolicyOnce, prompt)
				time.AfterFunc(500*time.Millisecond, func() { card.change(func() { test.another(card) }) })
				w := &signing{key: k, digest: fakeDigest[:], opts: crypto.SHA256, pin: pinEntry{prompt: prompt, slot: SlotAuthentication}}
				_, err := visitKey(t.Context(), k, w.run)
				if w.pin.have || w.pin.pin != "" {
					t.Errorf("the PIN is kept after: %v", err)
				}
				if got := card.commands(); got != test.sent {
					t.Errorf("sent %s, want %s", got, test.sent)
				}
				time.Sleep(2 * grace)
			})
		})
	}
}

func TestNobodyToAsk(t *testing.T) {
	card, k := pinCard(t, PINPolicyOnce, nil)
	wantError(t, trySign(t.Context(), k), ErrPINRequired)
	card.change(func() { card.verified = true }) // by another program
	k.sys.reader(fakeReader).ifFree(k.sys.reader(fakeReader).drop)
	mustSign(t, k)
}

func TestPromptFails(t *testing.T) {
	prompt := person()
	prompt.err = errors.New("no terminal")
	card, k := pinCard(t, PINPolicyOnce, prompt)
	wantError(t, trySign(t.Context(), k), prompt.err)
	if got := card.commands(); got != "tries factory" {
		t.Errorf("sent %s", got)
	}
}

func TestLastTry(t *testing.T) {
	for _, test := range []struct {
		name string
		pin  string
		yes  bool
		bold bool
		want error // nil: signed
		left int
	}{
		{"cannot be asked", "123456", true, false, ErrLastTry, 1},
		{"no", "123456", false, true, ErrLastTry, 1},
		{"yes, right", "123456", true, true, nil, 3},
		{"yes, wrong", "654321", true, true, ErrPINBlocked, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			person := person(test.pin)
			prompt := &bold{fakePrompt: person, yes: test.yes}
			card, k := pinCard(t, PINPolicyOnce, prompt)
			if !test.bold {
				k.opts.Prompt = person
			}
			card.change(func() { card.tries = 1 })
			err := trySign(t.Context(), k)
			if test.want == nil && err != nil {
				t.Fatal(err)
			}
			if test.want != nil {
				wantError(t, err, test.want)
			}
			if card.tries != test.left {
				t.Errorf("%d tries left, want %d", card.tries, test.left)
			}
			asked := test.bold && test.yes
			if got := len(person.asked) == 1 && person.asked[0].LastTry && person.asked[0].TriesLeft == 1; got != asked {
				t.Errorf("asked for the PIN: %+v", person.asked)
			}
			if test.bold && prompt.asked != 1 {
				t.Errorf("asked for a yes %d times", prompt.asked)
			}
		})
	}
}

// TestTriesSpentDuringPrompt has another program use up the tries while a person
// thinks.
func TestTriesSpentDuringPrompt(t *testing.T) {
	for left, want := range map[int]error{2: nil, 1: ErrLastTry, 0: ErrPINBlocked} {
		for _, policy := range []PINPolicy{PINPolicyOnce, PINPolicyAlways} {
			t.Run(policy.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					prompt := person()
					prompt.wait = 5 * time.Second
					card, k := pinCard(t, policy, prompt)
					time.AfterFunc(2*time.Second, func() {
						if card.connected() {
							t.Error("the card is held while the prompt waits")
						}
						card.change(func() { card.tries = left })
					})
					err := trySign(t.Context(), k)
					if want == nil && err != nil {
						t.Fatal(err)
					}
					if want != nil {
						wantError(t, err, want)
						if card.tries != left {
							t.Errorf("%d tries left, want %d", card.tries, left)
						}
					}
					time.Sleep(2 * grace)
				})
			})
		}
	}
}

// TestTriesAreCountedBeforeOneIsSpent has a card that does not tell them, because
// another program verified the PIN, or because the last try was right.
func TestTriesAreCountedBeforeOneIsSpent(t *testing.T) {
	t.Run("verified by another program", func(t *testing.T) {
		prompt := person("111111")
		card, k := pinCard(t, PINPolicyAlways, prompt)
		card.change(func() { card.verified, card.tries, card.most = true, 1, 1 })
		wantError(t, trySign(t.Context(), k), ErrLastTry)
		if got := card.commands(); got != "tries form tries factory" {
			t.Errorf("sent %s", got)
		}
	})
	t.Run("the only try was right", func(t *testing.T) {
		prompt := &bold{fakePrompt: person(), yes: true}
		card, k := pinCard(t, PINPolicyAlways, prompt)
		card.change(func() { card.tries, card.most = 1, 1 })
		mustSign(t, k)
		mustSign(t, k)
		if prompt.asked != 2 {
			t.Errorf("agreed %d times to a last try", prompt.asked)
		}
	})
	t.Run("the last try was right", func(t *testing.T) {
		prompt := &bold{fakePrompt: person(), yes: true}
		card, k := pinCard(t, PINPolicyAlways, prompt)
		card.change(func() { card.tries = 1 })
		mustSign(t, k)
		mustSign(t, k)
		if prompt.asked != 1 || prompt.fakePrompt.asked[1].TriesLeft != 3 {
			t.Errorf("agreed %d times; asked %+v", prompt.asked, prompt.fakePrompt.asked)
		}
	})
}

// TestManyTries has a card that allows more tries than it can tell. A PIN that was
// wrong can be right later, and the card does not show that somebody set it.
func TestManyTries(t *testing.T) {
	prompt := person()
	card, k := pinCard(t, PINPolicyAlways, prompt)
	card.change(func() { card.tries, card.most, card.pin = 20, 20, "111111" })
	wantWrongPIN(t, trySign(t.Context(), k), maxTold, false)
	card.change(func() { card.pin = "123456" })
	mustSign(t, k)
}

func TestPINSurvivesStaleConnection(t *testing.T) {
	// "always" sends the PIN first, and finds out that the card was reset.
	prompt := person()
	card, k := pinCard(t, PINPolicyAlways, prompt)
	mustSign(t, k)
	card.change(func() { card.open = nil })
	mustSign(t, k)
	if len(prompt.asked) != 2 {
		t.Errorf("asked %d times for 2 signatures", len(prompt.asked))
	}
}

// TestWhatNotSatisfiedMeans: the card has one answer for a missing PIN and a
// missing touch.
func TestWhatNotSatisfiedMeans(t *testing.T) {
	for _, test := range []struct {
		name     string
		firmware Version
		pin      PINPolicy
		imported bool // so that older firmware does not tell the policies
		log      string
		again    string // what a second signature takes, the first one just done
	}{
		{"once", Version{5, 7, 4}, PINPolicyOnce, false, "tries factory verify sign", "sign"},
		{"always", Version{5, 7, 4}, PINPolicyAlways, false, "tries factory verify sign", "verify sign"},
		{"once, forgetful firmware", Version{5, 3, 1}, PINPolicyOnce, false, "sign tries factory verify sign", "sign"},
		{"always, forgetful firmware", Version{5, 3, 1}, PINPolicyAlways, false, "tries factory verify sign", "verify sign"},
		{"never, forgetful firmware", Version{5, 3, 1}, PINPolicyNever, false, "sign", "sign"},
		{"unknown once", Version{5, 2, 7}, PINPolicyOnce, true, "sign tries verify sign", "sign"},
		{"unknown always", Version{5, 2, 7}, PINPolicyAlways, true, "sign tries verify sign", "sign tries verify sign"},
		{"unknown never", Version{5, 2, 7}, PINPolicyNever, true, "sign", "sign"},
	} {
		for name, touch := range map[string]TouchPolicy{"no touch": TouchPolicyNever, "touch": TouchPolicyAlways} {
			t.Run(test.name+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					card := newFakeCard(1).with(SlotAuthentication, test.pin, touch)
					card.firmware, card.touchAfter = test.firmware, time.Second
					s, _ := fakeSystem(card)
					prompt := person()
					k := mustOpen(t, s, Options{Prompt: prompt})
					defer time.Sleep(2 * grace)
					if test.imported {
						k.info.pin, k.info.touch = 0, 0
						k.sys.reader(fakeReader).conn.slots[SlotAuthentication] = k.info
					}
					card.commands()
					mustSign(t, k)
					if got := card.commands(); got != test.log {
						t.Errorf("sent %s, want %s", got, test.log)
					}
					mustSign(t, k)
					if got := card.commands(); got != test.again {
						t.Errorf("sent %s again, want %s", got, test.again)
					}
					if touch == TouchPolicyNever {
						return
					}
					asked := len(prompt.asked)
					card.change(func() { card.noTouch = true })
					wantError(t, trySign(t.Context(), k), ErrTouchTimeout)
					card.change(func() { card.noTouch = false })
					if test.pin == PINPolicyAlways {
						asked++
					}
					if len(prompt.asked) != asked {
						t.Error("asked for a PIN because of a touch")
					}
					mustSign(t, k)
				})
			})
		}
	}
}

func TestBiometricPolicies(t *testing.T) {
	for _, policy := range []PINPolicy{PINPolicyMatchOnce, PINPolicyMatchAlways} {
		_, k := pinCard(t, policy, person())
		wantError(t, trySign(t.Context(), k), ErrUnsupported)
	}
}

package pivtest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/ycauth/ycauth-go/piv/pivtest"
)

// A card without a reader, command by command: the PIN is wrong, then right.
func ExampleNew() {
	ctx := context.Background()
	card, err := pivtest.New(pivtest.Config{PIN: "314159"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, apdu := range []string{
		"\x00\xa4\x04\x00\x05\xa0\x00\x00\x03\x08", // SELECT
		"\x00\x20\x00\x80\x08123456\xff\xff",       // VERIFY
		"\x00\x20\x00\x80\x08314159\xff\xff",
	} {
		answer, err := card.Transmit(ctx, []byte(apdu))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%X\n", answer)
	}
	fmt.Println(card.Count(pivtest.InsVerify), "tries of the PIN")
	// Output:
	// 61114F0600001000010079074F05A0000003089000
	// 63C2
	// 9000
	// 2 tries of the PIN
}

// A finger that a test moves: the card blinks until somebody sends to the channel.
func ExampleTouchFunc() {
	finger := make(chan struct{})
	touch := func(ctx context.Context) bool {
		select {
		case <-finger:
			return true
		case <-ctx.Done():
			return false
		}
	}
	card, err := pivtest.New(pivtest.Config{Touch: touch, TouchTimeout: time.Minute})
	fmt.Println(card.Firmware(), err)
	// Output: 5.7.4 <nil>
}

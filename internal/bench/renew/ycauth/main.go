// Ycauth renews a token with ycauth-go, and does nothing else: what importing it
// costs is measured by this program.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/ycauth/ycauth-go/oauth"
)

func main() {
	client, err := oauth.New(oauth.Config{Provider: oauth.YandexCloud(), ClientID: oauth.YandexCloudClientID})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Import(context.Background(), oauth.Secret(os.Getenv("REFRESH_TOKEN"))); err != nil {
		log.Fatal(err)
	}
	token, err := client.TokenSource().Token()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.Expiry)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// keyCooldown is how long after fetching the keys an unknown one is simply unknown.
	keyCooldown = 10 * time.Second
	// keyRetry is how long after a failed fetch the next request tries again.
	keyRetry = 500 * time.Millisecond
	// fetchLimit is how long fetching one of the issuer's documents may take.
	fetchLimit      = 2 * time.Second
	longestDocument = 256 << 10
)

// errNoKeys says that nobody can tell whether a token is valid.
var errNoKeys = errors.New("the issuer's keys are not available")

// claims is what a token says.
type claims struct {
	jwt.RegisteredClaims
	Scope string `json:"scope"`
}

// permits says whether the token permits the scope.
func (c *claims) permits(scope string) bool {
	return slices.Contains(strings.Fields(c.Scope), scope)
}

// issuer is what is known of who makes the tokens.
type issuer struct {
	name string
	keys jwkSet
}

// verifier checks bearer tokens against the issuer's keys. The issuer's name is what its discovery
// document says; keys are kept, and fetched again when a token names one that is not known.
type verifier struct {
	client                *http.Client
	discoveryURL, jwksURL string

	// mu is held while a fetch runs: whoever else needs its result waits for it.
	mu        sync.Mutex
	issuer    *issuer
	fetchedAt time.Time
	fetchedOK bool
}

// newVerifier makes a verifier that knows no keys yet.
func newVerifier(issuerURL, jwksURL string) *verifier {
	return &verifier{
		client:       &http.Client{Timeout: fetchLimit},
		discoveryURL: strings.TrimRight(issuerURL, "/") + "/.well-known/openid-configuration",
		jwksURL:      jwksURL,
	}
}

// warm fetches the keys ahead of the first token.
func (v *verifier) warm(ctx context.Context) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refetch(ctx)
}

// verify checks a token. The error is errNoKeys where nobody can tell.
func (v *verifier) verify(ctx context.Context, token string) (*claims, error) {
	var from *issuer
	byKey := func(token *jwt.Token) (any, error) {
		id, _ := token.Header["kid"].(string)
		var err error
		if from, err = v.issuerOf(ctx, id); err != nil {
			return nil, err
		}
		key, ok := from.keys.find(id)
		if !ok {
			return nil, errors.New("unknown key")
		}
		return key.public()
	}
	var said claims
	// No symmetric algorithm: a public key must never be taken for a shared secret.
	_, err := jwt.ParseWithClaims(token, &said, byKey,
		jwt.WithValidMethods([]string{"RS256", "ES256", "EdDSA"}), jwt.WithExpirationRequired())
	if errors.Is(err, errNoKeys) {
		return nil, errNoKeys
	}
	if err != nil {
		return nil, err
	}
	if said.Issuer != from.name {
		return nil, errors.New("the token is another issuer's")
	}
	return &said, nil
}

// issuerOf returns the issuer with the key of that id, where it has one.
func (v *verifier) issuerOf(ctx context.Context, id string) (*issuer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	known := false
	if v.issuer != nil {
		_, known = v.issuer.keys.find(id)
	}
	wait := keyRetry
	if v.fetchedOK {
		wait = keyCooldown
	}
	if !known && time.Since(v.fetchedAt) >= wait {
		v.refetch(ctx)
	}
	if v.issuer == nil {
		return nil, errNoKeys
	}
	return v.issuer, nil
}

// refetch asks the issuer. The lock is held.
func (v *verifier) refetch(ctx context.Context) {
	fetched, err := v.fetch(ctx)
	v.fetchedAt, v.fetchedOK = time.Now(), err == nil
	if err != nil {
		slog.Warn("no keys from the issuer", "why", err)
		return
	}
	v.issuer = fetched
}

func (v *verifier) fetch(ctx context.Context) (*issuer, error) {
	fetched := &issuer{}
	if v.issuer != nil {
		fetched.name = v.issuer.name
	} else {
		var discovery struct {
			Issuer string `json:"issuer"`
		}
		if err := v.get(ctx, v.discoveryURL, &discovery); err != nil {
			return nil, err
		}
		fetched.name = discovery.Issuer
	}
	return fetched, v.get(ctx, v.jwksURL, &fetched.keys)
}

func (v *verifier) get(ctx context.Context, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set(traceparent, span(ctx))
	response, err := v.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: status %d", url, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, longestDocument))
	if err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	return json.Unmarshal(body, into)
}

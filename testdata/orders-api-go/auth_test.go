package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// authority is an issuer with one key of each kind.
type authority struct {
	url     string
	keys    map[string]crypto.Signer
	fetches atomic.Int32
}

func base64URL(bytes []byte) string { return base64.RawURLEncoding.EncodeToString(bytes) }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	rsaKey, errRSA := rsa.GenerateKey(rand.Reader, 2048)
	ecKey, errEC := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, edKey, errEd := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(errRSA, errEC, errEd); err != nil {
		t.Fatal(err)
	}
	point, err := ecKey.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	set := jwkSet{Keys: []jwk{
		{KeyType: "RSA", ID: "rsa", N: base64URL(rsaKey.N.Bytes()), E: base64URL(big.NewInt(int64(rsaKey.E)).Bytes())},
		{KeyType: "EC", ID: "ec", Curve: "P-256", X: base64URL(point[1:33]), Y: base64URL(point[33:])},
		{KeyType: "OKP", ID: "ed", Curve: "Ed25519", X: base64URL(edKey.Public().(ed25519.PublicKey))},
	}}
	a := &authority{keys: map[string]crypto.Signer{"rsa": rsaKey, "ec": ecKey, "ed": edKey}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"issuer": "https://issuer.example"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		a.fetches.Add(1)
		json.NewEncoder(w).Encode(set)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *authority) sign(t *testing.T, method jwt.SigningMethod, kid, issuer string, expires time.Duration) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims{
		"sub": "user-1", "scope": "read:orders write:orders", "iss": issuer,
		"exp": time.Now().Add(expires).Unix(),
	})
	token.Header["kid"] = kid
	signed, err := token.SignedString(a.keys[kid])
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestTokensOfTheIssuerAreTakenAndOthersRefused(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier(a.url, a.url+"/keys")
	const issuer = "https://issuer.example"
	methods := map[string]jwt.SigningMethod{
		"rsa": jwt.SigningMethodRS256, "ec": jwt.SigningMethodES256, "ed": jwt.SigningMethodEdDSA,
	}
	for kid, method := range methods {
		said, err := v.verify(context.Background(), a.sign(t, method, kid, issuer, time.Hour))
		if err != nil || said.Subject != "user-1" {
			t.Errorf("%s: %v", kid, err)
			continue
		}
		if !said.permits("read:orders") || !said.permits("write:orders") || said.permits("orders") || said.permits("") {
			t.Errorf("%s: scopes are whole words", kid)
		}
	}
	if fetches := a.fetches.Load(); fetches != 1 {
		t.Errorf("%d fetches of the keys", fetches)
	}
	for name, token := range map[string]string{
		"another issuer": a.sign(t, jwt.SigningMethodES256, "ec", "https://other.example", time.Hour),
		"expired":        a.sign(t, jwt.SigningMethodES256, "ec", issuer, -time.Hour),
		"no token":       "abc",
	} {
		if _, err := v.verify(context.Background(), token); err == nil || errors.Is(err, errNoKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSymmetricAndUnsignedTokensAreRefusedBeforeAnyKeyIsFetched(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier(a.url, a.url+"/keys")
	for _, header := range []string{`{"alg":"HS256","typ":"JWT"}`, `{"alg":"none"}`} {
		_, err := v.verify(context.Background(), base64URL([]byte(header))+".e30.AA")
		if err == nil || errors.Is(err, errNoKeys) {
			t.Errorf("%s: %v", header, err)
		}
	}
	if a.fetches.Load() != 0 {
		t.Error("keys were fetched")
	}
}

func TestWithoutKeysNobodyCanTell(t *testing.T) {
	a := newAuthority(t)
	v := newVerifier("http://127.0.0.1:1", "http://127.0.0.1:1/keys")
	token := a.sign(t, jwt.SigningMethodES256, "ec", "https://issuer.example", time.Hour)
	if _, err := v.verify(context.Background(), token); !errors.Is(err, errNoKeys) {
		t.Errorf("%v", err)
	}
}

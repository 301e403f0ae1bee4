package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
)

// jwk is a public key as an issuer publishes it (RFC 7517, RFC 8037).
type jwk struct {
	KeyType string `json:"kty"`
	ID      string `json:"kid"`
	Curve   string `json:"crv"`
	X       string `json:"x"`
	Y       string `json:"y"`
	N       string `json:"n"`
	E       string `json:"e"`
}

type jwkSet struct {
	Keys []jwk `json:"keys"`
}

// find returns the key that a token names; the only one where it names none.
func (s jwkSet) find(id string) (jwk, bool) {
	if id == "" {
		if len(s.Keys) == 1 {
			return s.Keys[0], true
		}
		return jwk{}, false
	}
	for _, key := range s.Keys {
		if key.ID == id {
			return key, true
		}
	}
	return jwk{}, false
}

// public decodes the key.
func (k jwk) public() (crypto.PublicKey, error) {
	switch {
	case k.KeyType == "RSA":
		return k.rsa()
	case k.KeyType == "EC" && k.Curve == "P-256":
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if err := errors.Join(errX, errY); err != nil {
			return nil, err
		}
		if len(x) != 32 || len(y) != 32 {
			return nil, errors.New("a coordinate of P-256 has 32 bytes")
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	case k.KeyType == "OKP" && k.Curve == "Ed25519":
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil {
			return nil, err
		}
		if len(x) != ed25519.PublicKeySize {
			return nil, errors.New("a key of Ed25519 has 32 bytes")
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, fmt.Errorf("keys of type %q %q are not understood", k.KeyType, k.Curve)
}

func (k jwk) rsa() (*rsa.PublicKey, error) {
	n, errN := base64.RawURLEncoding.DecodeString(k.N)
	e, errE := base64.RawURLEncoding.DecodeString(k.E)
	if err := errors.Join(errN, errE); err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if len(n) == 0 || !exponent.IsInt64() || exponent.Int64() < 2 || exponent.Int64() > 1<<31-1 {
		return nil, errors.New("not an RSA key")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

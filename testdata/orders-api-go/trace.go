package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
)

// traceparent is the header of W3C trace context, on HTTP, gRPC and Kafka alike.
const traceparent = "traceparent"

var validTraceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)

type traceKey struct{}

// withTrace puts the trace that a request belongs to into its context: the caller's where its header
// makes sense, else a new one.
func withTrace(ctx context.Context, header string) context.Context {
	return context.WithValue(ctx, traceKey{}, traceID(header))
}

func traceID(header string) string {
	if validTraceparent.MatchString(header) {
		if id := strings.Split(header, "-")[1]; strings.Trim(id, "0") != "" {
			return id
		}
	}
	return randomHex(16)
}

// traceOf is the id of the trace that the context belongs to.
func traceOf(ctx context.Context) string {
	if id, ok := ctx.Value(traceKey{}).(string); ok {
		return id
	}
	return randomHex(16)
}

// span is the header's value for one outgoing call.
func span(ctx context.Context) string {
	return "00-" + traceOf(ctx) + "-" + randomHex(8) + "-01"
}

func randomHex(bytes int) string {
	buffer := make([]byte, bytes)
	rand.Read(buffer) // never fails
	return hex.EncodeToString(buffer)
}

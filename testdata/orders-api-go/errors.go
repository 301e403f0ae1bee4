package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
)

// apiError is why a request is not answered as asked.
type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return e.message }

func badRequest(why string) error   { return &apiError{http.StatusBadRequest, why} }
func unauthorized(why string) error { return &apiError{http.StatusUnauthorized, why} }
func unavailable(who string) error {
	return &apiError{http.StatusServiceUnavailable, who + " is not available"}
}

var errTooLate = &apiError{http.StatusGatewayTimeout, "not done in " + requestLimit.String()}

// databaseError is the answer to a failure of the database: what it said is in the log, not in the
// answer. A refusal is our fault, unreachability is not.
func databaseError(err error) error {
	code := pick("http-error-status", http.StatusServiceUnavailable, http.StatusBadGateway)
	if isRefused(err) {
		code = http.StatusInternalServerError
	}
	return &apiError{code, pick("http-error-body", "the database is not available", "no database")}
}

// handler is a route that may fail.
type handler func(w http.ResponseWriter, r *http.Request) error

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := h(w, r)
	if err == nil {
		return
	}
	answer := &apiError{http.StatusInternalServerError, "internal error"}
	switch {
	case errors.Is(r.Context().Err(), context.DeadlineExceeded):
		answer = errTooLate
	case errors.As(err, &answer):
	default:
		slog.Error("a route failed", "why", err)
	}
	if answer.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, answer.status, map[string]string{"error": answer.message})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		slog.Error("an answer cannot be encoded", "why", err)
		status, encoded = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	writeBody(w, status, encoded)
}

func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", pick("http-content-type", "application/json", "text/plain"))
	w.WriteHeader(status)
	// A caller that is gone cannot be told anything.
	w.Write(body)
}

package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

func TestABalanceCoversAPriceUpToItself(t *testing.T) {
	for _, c := range []struct {
		amount string
		price  int64
		want   string
	}{{"5000.00", 5000, "covered"}, {"4999.99", 5000, "uncovered"}, {"much", 5000, "unknown"}} {
		if got := offerState(covers(c.amount, c.price)); got != c.want {
			t.Errorf("%s for %d: %s", c.amount, c.price, got)
		}
	}
}

func TestErrorsSayWhoseTheyAreButNotWhatTheDatabaseSaid(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{databaseError(&mysql.MySQLError{Number: 3, Message: "secret"}), http.StatusInternalServerError},
		{databaseError(mysql.ErrInvalidConn), http.StatusServiceUnavailable},
		{databaseError(errNoConnection), http.StatusServiceUnavailable},
		{unavailable("user-service"), http.StatusServiceUnavailable},
		{unauthorized("no"), http.StatusUnauthorized},
		{errors.New("secret"), http.StatusInternalServerError},
	} {
		recorder := httptest.NewRecorder()
		failing := handler(func(http.ResponseWriter, *http.Request) error { return c.err })
		failing.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil))
		if recorder.Code != c.status || strings.Contains(recorder.Body.String(), "secret") {
			t.Errorf("%v: %d %s", c.err, recorder.Code, recorder.Body)
		}
		if bearer := recorder.Header().Get("WWW-Authenticate"); (bearer == "Bearer") != (c.status == 401) {
			t.Errorf("%v: WWW-Authenticate %q", c.err, bearer)
		}
	}
}

func TestOrdersThatMakeNoSenseAreRefused(t *testing.T) {
	read := func(body string) error {
		request := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
		_, err := readOrder(httptest.NewRecorder(), request)
		return err
	}
	if err := read(`{"price":5000,"city_id":169}`); err != nil {
		t.Error(err)
	}
	for _, body := range []string{
		``, `[]`, `{"price":1}`, `{"price":0,"city_id":1}`, `{"price":-1,"city_id":1}`,
		`{"price":100000001,"city_id":1}`, `{"price":"1","city_id":1}`, `{"price":1.5,"city_id":1}`,
	} {
		var refused *apiError
		if err := read(body); !errors.As(err, &refused) || refused.status != http.StatusBadRequest {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestHealthAsksNobodyAndUnknownRoutesAreRefused(t *testing.T) {
	server := httptest.NewServer((&app{}).routes())
	defer server.Close()
	for path, status := range map[string]int{"/healthz": 200, "/orders": 401, "/nothing": 404} {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != status {
			t.Errorf("%s: %d", path, response.StatusCode)
		}
		if status != 404 && !json.Valid(body) {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestOrdersAreListedWithoutLosingMicroseconds(t *testing.T) {
	moment := time.Date(2024, 3, 1, 8, 30, 0, 250_000, time.UTC)
	if got := timestamp(moment.In(time.FixedZone("", 3600))); got != "2024-03-01T08:30:00.000250Z" {
		t.Error(got)
	}
	listed, err := json.Marshal(map[string]any{"orders": []listedOrder{}})
	if err != nil || string(listed) != `{"orders":[]}` {
		t.Errorf("%s %v", listed, err)
	}
}

func TestOnlyConnectionsThatBreakAreTriedAgain(t *testing.T) {
	if !isBroken(mysql.ErrInvalidConn) || isBroken(&mysql.MySQLError{Number: 1114}) || isBroken(errNoConnection) {
		t.Error("wrong")
	}
	ours := &mysql.MySQLError{Number: duplicateEntry, Message: "Duplicate entry 'u-1' for key 'orders_uuid'"}
	if !isOurDuplicate(ours, "u-1") || isOurDuplicate(ours, "u-2") || isOurDuplicate(nil, "u-1") {
		t.Error("wrong")
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"faultbox.example/orders-api/internal/pb"
)

const (
	// requestLimit is how long a request may take.
	requestLimit = 10 * time.Second
	highestPrice = 100_000_000
	longestBody  = 1 << 20
)

// app is everything that requests use.
type app struct {
	store     *store
	cache     *cache
	bus       *bus
	upstreams *upstreams
	verifier  *verifier
	bug       Bug
}

func (a *app) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", handler(a.health))
	mux.Handle("GET /orders", handler(a.listOrders))
	mux.Handle("POST /orders", handler(a.createOrder))
	mux.Handle("POST /auth/refresh", handler(a.refresh))
	mux.Handle("GET /events/{key}", handler(a.event))
	return envelope(mux)
}

// envelope is around every request: its trace, its limit, its line in the log.
func envelope(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(withTrace(r.Context(), r.Header.Get(traceparent)), requestLimit)
		defer cancel()
		began := time.Now()
		recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(recorder, r.WithContext(ctx))
		slog.Info("request", "method", r.Method, "path", r.URL.Path, "status", recorder.status,
			"ms", time.Since(began).Milliseconds(), "trace", traceOf(ctx))
	})
}

type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// health answers for this process alone and asks no dependency.
func (a *app) health(w http.ResponseWriter, r *http.Request) error {
	// ORDERS_BUG=db-slow-health: asks the database, and takes its slowness for our own death.
	if a.bug == dbSlowHealth {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if err := a.store.ping(ctx); err != nil && ctx.Err() != nil {
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "database"})
			return nil
		}
	}
	if mutated("health-asks-database") {
		a.store.ping(r.Context())
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": pick("health-body", "ok", "up")})
	return nil
}

func (a *app) listOrders(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	said, err := a.authorize(r, "read:orders")
	if err != nil {
		return err
	}
	if err := a.askUsersFirst(ctx, said); err != nil {
		return err
	}
	list, found := a.cache.get(ctx)
	if found != hit {
		orders, err := a.store.list(ctx)
		if err != nil {
			return databaseError(err)
		}
		encoded, err := json.Marshal(map[string]any{"orders": orders})
		if err != nil {
			return err
		}
		list = string(encoded)
	}
	if found == miss {
		a.cache.put(ctx, list)
	}
	w.Header().Set("X-Cache", pick("http-cache-header", string(found), "fill"))
	writeBody(w, http.StatusOK, []byte(list))
	return nil
}

// orderBody is what POST /orders takes.
type orderBody struct {
	Price  *int64 `json:"price"`
	CityID *int64 `json:"city_id"`
}

// orderAnswer is what POST /orders answers.
type orderAnswer struct {
	ID        string     `json:"id"`
	Number    *int64     `json:"number"`
	Status    string     `json:"status"`
	Price     string     `json:"price"`
	City      cityAnswer `json:"city"`
	Covered   *bool      `json:"covered"`
	Published bool       `json:"published"`
	CreatedAt string     `json:"created_at"`
}

type cityAnswer struct {
	ID      int64  `json:"id"`
	Name    string `json:"name"`
	Country string `json:"country"`
}

func (a *app) createOrder(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	said, err := a.authorize(r, "write:orders")
	if err != nil {
		return err
	}
	body, err := readOrder(w, r)
	if err != nil {
		return err
	}
	if err := a.askUsersFirst(ctx, said); err != nil {
		return err
	}
	city, covered, err := a.cityAndCover(ctx, *body.CityID, said.Subject, *body.Price)
	if err != nil {
		return err
	}
	order := newOrder{
		uuid:      uuid.NewString(),
		customer:  said.Subject,
		cityID:    city.GetId(),
		cityName:  city.GetName(),
		price:     *body.Price,
		covered:   covered,
		createdAt: time.Now().UTC().Truncate(time.Microsecond),
	}
	if mutated("grpc-call-extra") {
		a.upstreams.user(ctx, said.Subject)
	}
	if mutated("event-before-write") {
		a.publish(ctx, order)
	}
	number, err := a.store.insert(ctx, order)
	if err != nil {
		return databaseError(err)
	}
	a.cache.forget(ctx)
	published := true
	if !mutated("event-missing") && !mutated("event-before-write") {
		if published, err = a.publish(ctx, order); err != nil {
			return err
		}
	}
	if mutated("event-twice") {
		a.publish(ctx, order)
	}
	if ctx.Err() != nil {
		return errTooLate
	}
	if !mutated("http-header-missing") {
		w.Header().Set("Location", pick("http-location", "/orders/", "/order/")+order.uuid)
	}
	if mutated("http-header-extra") {
		w.Header().Set("X-Orders", "1")
	}
	writeJSON(w, pick("http-status", http.StatusCreated, http.StatusOK), orderAnswer{
		ID:        pick("http-id", order.uuid, uuid.NewString()),
		Number:    pick("http-field-missing", number, nil),
		Status:    pick("http-body", "open", "new"),
		Price:     fmt.Sprintf(pick("http-price", "%d.00", "%d"), order.price),
		City:      cityAnswer{city.GetId(), city.GetName(), city.GetCountry()},
		Covered:   covered,
		Published: published,
		CreatedAt: timestamp(order.createdAt),
	})
	return nil
}

func readOrder(w http.ResponseWriter, r *http.Request) (orderBody, error) {
	var body orderBody
	read, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestBody))
	if err != nil {
		return body, badRequest(err.Error())
	}
	if err := json.Unmarshal(read, &body); err != nil {
		return body, badRequest(err.Error())
	}
	if body.Price == nil || body.CityID == nil {
		return body, badRequest("price and city_id are needed")
	}
	if *body.Price < 1 || *body.Price > highestPrice {
		return body, badRequest(fmt.Sprintf("a price is from 1 to %d", highestPrice))
	}
	return body, nil
}

// cityAndCover asks two upstreams at once. An order needs its city; whether the balance covers the
// price it does not depend on anybody knowing.
func (a *app) cityAndCover(ctx context.Context, cityID int64, subject string, price int64) (*pb.City, *bool, error) {
	balance := make(chan *bool, 1)
	go func() { balance <- a.isCovered(ctx, subject, price) }()
	city, err := a.upstreams.city(ctx, cityID)
	covered := <-balance
	switch status.Code(err) {
	case codes.OK:
		return city, covered, nil
	case codes.NotFound, codes.InvalidArgument:
		return nil, nil, &apiError{http.StatusUnprocessableEntity, "no such city"}
	default:
		return nil, nil, unavailable("geo-config")
	}
}

func (a *app) isCovered(ctx context.Context, subject string, price int64) *bool {
	if mutated("grpc-call-missing") {
		return nil
	}
	balance, err := a.upstreams.balance(ctx, subject)
	if err != nil {
		return nil
	}
	return covers(balance.GetAmount(), price)
}

func covers(amount string, price int64) *bool {
	// Prices are whole: what stands behind the point does not matter.
	whole, _, _ := strings.Cut(amount, ".")
	number, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return nil
	}
	covered := number >= price
	return &covered
}

func (a *app) publish(ctx context.Context, order newOrder) (bool, error) {
	fields := map[string]any{
		"type":       pick("event-field", "order.created", "order.made"),
		"event_id":   uuid.NewString(),
		"order_id":   pick("event-order-id", order.uuid, uuid.NewString()),
		"customer":   pick("event-customer", order.customer, "somebody"),
		"city_id":    order.cityID,
		"price":      order.price + pick[int64]("event-price", 0, 1),
		"created_at": timestamp(order.createdAt),
	}
	if mutated("event-field-missing") {
		delete(fields, "event_id")
	}
	if mutated("event-field-extra") {
		fields["version"] = 1
	}
	ctx = pick("event-trace", ctx, withTrace(ctx, ""))
	payload, err := json.Marshal(fields)
	if err != nil {
		return false, err
	}
	return a.bus.publish(ctx, event{key: order.uuid, payload: payload, traceparent: span(ctx)}), nil
}

func (a *app) refresh(w http.ResponseWriter, r *http.Request) error {
	said, err := a.authorize(r, "")
	if err != nil {
		return err
	}
	if mutated("grpc-call-of-another") {
		a.upstreams.balance(r.Context(), said.Subject)
	}
	user, err := a.upstreams.user(r.Context(), said.Subject)
	switch {
	case status.Code(err) == codes.NotFound:
		return unauthorized("no such user")
	case err != nil:
		return unavailable("user-service")
	case !user.GetVerified():
		return unauthorized("the user is not verified")
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"session":      uuid.NewString(),
		"user":         map[string]any{"id": user.GetId(), "name": pick("http-user", user.GetName(), "")},
		"refreshed_at": timestamp(time.Now()),
	})
	return nil
}

// event says whether this instance has handled the event with this key, and waits for it for a while.
func (a *app) event(w http.ResponseWriter, r *http.Request) error {
	key := r.PathValue("key")
	handled, code := a.bus.handles(r.Context(), key), http.StatusOK
	if !handled {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, map[string]any{"event": key, "handled": handled})
	return nil
}

// authorize says who asks, if the token says so and permits it.
func (a *app) authorize(r *http.Request, scope string) (*claims, error) {
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "bearer") {
		return nil, unauthorized("a bearer token is needed")
	}
	said, err := a.verifier.verify(r.Context(), strings.TrimSpace(token))
	switch {
	case errors.Is(err, errNoKeys):
		return nil, unavailable("the token issuer")
	case err != nil:
		return nil, unauthorized(err.Error())
	case scope != "" && !said.permits(scope):
		return nil, &apiError{http.StatusForbidden, "the token does not permit " + scope}
	}
	return said, nil
}

// askUsersFirst is ORDERS_BUG=auth-cascade: orders need user-service, though nothing they do does.
func (a *app) askUsersFirst(ctx context.Context, said *claims) error {
	if a.bug != authCascade {
		return nil
	}
	if _, err := a.upstreams.user(ctx, said.Subject); err != nil {
		return unavailable("user-service")
	}
	return nil
}

// Command api is the Go service under test of specs/orders: orders in MySQL, their list cached in
// Redis, events in Kafka, three gRPC upstreams, tokens checked against an issuer's keys. It has the
// same API, limits and planted defects (ORDERS_BUG) as its Rust sibling in testdata/orders-api.
//
// README: "make build" here leaves a static binary at bin/api; run it in place of the other by
// "faultbox test specs/orders/faultbox.star --embedded --binary api=testdata/orders-api-go/bin/api".
//
// It is written as an ordinary service is, not to be convenient to test: ids are random, times its
// own clock's, upstreams are asked concurrently, connections are kept, a ticker and a consumer run
// beside the requests. It starts whether or not its dependencies are up.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	port = 8080
	// warmLimit is how long the first request waits for connections that are still being made.
	warmLimit = time.Second
	tick      = 500 * time.Millisecond
	// stopLimit is how long requests and the consumer group may take to end once we are told to stop.
	stopLimit = 100 * time.Millisecond
)

func main() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stdout, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("cannot start", "why", err)
		os.Exit(2)
	}
	slog.Info("stopped")
}

func run(ctx context.Context) error {
	config, err := readConfig(os.Getenv)
	if err != nil {
		return err
	}
	app, err := newApp(config)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}

	go app.bus.drainEvery(ctx, tick)
	go app.bus.listen(ctx)
	warm(ctx, app)

	server := &http.Server{Handler: app.routes(), ReadHeaderTimeout: requestLimit}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	slog.Info("ready", "port", port)

	select {
	case err := <-failed:
		return fmt.Errorf("port %d: %w", port, err)
	case <-ctx.Done():
	}
	shutDown(server, app)
	return nil
}

func newApp(config Config) (*app, error) {
	bus, err := newBus(config.Brokers, config.Events, config.Bug)
	if err != nil {
		return nil, fmt.Errorf("KAFKA_BROKERS: %w", err)
	}
	upstreams, err := newUpstreams(config.Geo, config.Users, config.Balance)
	if err != nil {
		return nil, fmt.Errorf("an upstream's address: %w", err)
	}
	store, err := newStore(config.Database, config.Bug)
	if err != nil {
		return nil, fmt.Errorf("DATABASE_URL: %w", err)
	}
	return &app{
		store:     store,
		cache:     newCache(config.Redis, time.Now()),
		bus:       bus,
		upstreams: upstreams,
		verifier:  newVerifier(config.Issuer, config.JWKS),
		bug:       config.Bug,
	}, nil
}

// warm makes the connections that requests will need. What takes longer goes on in the background.
func warm(ctx context.Context, app *app) {
	var warming sync.WaitGroup
	for _, part := range []func(context.Context){
		app.store.warm, app.cache.warm, app.bus.warm, app.upstreams.warm, app.verifier.warm,
	} {
		warming.Go(func() { part(ctx) })
	}
	done := make(chan struct{})
	go func() {
		warming.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(warmLimit):
		slog.Warn("not everything is connected yet")
	}
}

// shutDown lets requests end and leaves the consumer group; what is not done in time is cut off.
func shutDown(server *http.Server, app *app) {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	var stopping sync.WaitGroup
	stopping.Go(func() {
		if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			slog.Warn("stopping", "why", err)
		}
	})
	stopping.Go(func() { app.bus.leave(ctx) })
	stopping.Wait()
}

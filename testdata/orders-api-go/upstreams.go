package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"faultbox.example/orders-api/internal/pb"
)

// callLimit is how long a call of an upstream may take.
const callLimit = 2 * time.Second

// upstreams is the three gRPC upstreams. Every call carries the request's trace and a deadline.
type upstreams struct {
	connections []*grpc.ClientConn
	geo         pb.GeoConfigServiceClient
	users       pb.UserServiceClient
	balances    pb.BalanceServiceClient
}

// newUpstreams makes clients that have not connected yet.
func newUpstreams(geo, users, balance string) (*upstreams, error) {
	u := &upstreams{}
	for _, address := range []string{geo, users, balance} {
		connection, err := grpc.NewClient(address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithUnaryInterceptor(outgoing))
		if err != nil {
			return nil, err
		}
		u.connections = append(u.connections, connection)
	}
	u.geo = pb.NewGeoConfigServiceClient(u.connections[0])
	u.users = pb.NewUserServiceClient(u.connections[1])
	u.balances = pb.NewBalanceServiceClient(u.connections[2])
	return u, nil
}

// warm connects ahead of the first request.
func (u *upstreams) warm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var warming sync.WaitGroup
	for _, connection := range u.connections {
		warming.Go(func() {
			connection.Connect()
			for state := connection.GetState(); state != connectivity.Ready; state = connection.GetState() {
				if !connection.WaitForStateChange(ctx, state) {
					slog.Warn("not connected yet", "to", connection.Target())
					return
				}
			}
		})
	}
	warming.Wait()
}

// city returns a city by id.
func (u *upstreams) city(ctx context.Context, id int64) (*pb.City, error) {
	return u.geo.GetCity(ctx, &pb.GetCityRequest{Id: id + pick[int64]("grpc-field", 0, 1)})
}

// user returns the user behind a token's subject.
func (u *upstreams) user(ctx context.Context, subject string) (*pb.User, error) {
	return u.users.Get(ctx, &pb.GetUserRequest{Subject: pick("grpc-subject", subject, "user-0")})
}

// balance returns what a token's subject has.
func (u *upstreams) balance(ctx context.Context, subject string) (*pb.Balance, error) {
	return u.balances.Get(ctx, &pb.GetBalanceRequest{Subject: pick("grpc-balance-subject", subject, "user-0")})
}

// outgoing is around every call: its deadline, its trace, its line in the log where it failed.
func outgoing(
	ctx context.Context, method string, request, reply any,
	connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	traced := pick("grpc-trace", ctx, withTrace(ctx, ""))
	if !mutated("grpc-metadata-missing") {
		ctx = metadata.AppendToOutgoingContext(ctx, traceparent, span(traced))
	}
	if mutated("grpc-metadata-extra") {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-caller", "orders")
	}
	err := invoke(ctx, method, request, reply, connection, options...)
	if err != nil {
		why := status.Convert(err)
		slog.Warn("upstream", "method", method, "code", why.Code().String(), "why", why.Message())
	}
	return err
}

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
)

const (
	// slots is how many connections there are, and so how many requests use the database at once.
	slots = 4
	// connectLimit is how long getting a connection may take.
	connectLimit = 2 * time.Second
	// duplicateEntry is MySQL's ER_DUP_ENTRY.
	duplicateEntry = 1062
)

// errNoConnection says that the pool had nothing to give in time.
var errNoConnection = errors.New("no database connection in " + connectLimit.String())

// store is orders and offers in MySQL. Work on a connection that breaks is tried once more on a
// fresh one; an error of the server itself is not retried.
type store struct {
	pool     *sql.DB
	poisoned bool
}

// newOrder is an order to be written.
type newOrder struct {
	uuid      string
	customer  string
	cityID    int64
	cityName  string
	price     int64
	covered   *bool // nil where nobody could say
	createdAt time.Time
}

// listedOrder is an order as it is listed.
type listedOrder struct {
	ID        string  `json:"id"`
	Customer  string  `json:"customer"`
	CityID    int64   `json:"city_id"`
	City      string  `json:"city"`
	Price     string  `json:"price"`
	Status    string  `json:"status"`
	Offer     *string `json:"offer"`
	CreatedAt string  `json:"created_at"`
}

// newStore makes a pool that has not connected yet.
func newStore(config *mysql.Config, bug Bug) (*store, error) {
	config.Timeout = connectLimit
	// What breaks is reported once, by us.
	config.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(slots)
	pool.SetMaxIdleConns(slots)
	pool.SetConnMaxLifetime(5 * time.Minute)
	return &store{pool: pool, poisoned: bug == dbPoison}, nil
}

// warm opens the pool's connections ahead of the first request.
func (s *store) warm(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	open := make([]*sql.Conn, slots)
	var opening sync.WaitGroup
	for i := range open {
		opening.Go(func() {
			conn, err := s.pool.Conn(ctx)
			if err != nil {
				slog.Warn("no database connection yet", "why", err)
				return
			}
			open[i] = conn
		})
	}
	opening.Wait()
	// All are held until the last is open, else one would be handed out again and again.
	for _, conn := range open {
		if conn != nil {
			conn.Close()
		}
	}
}

// ping asks for nothing, but asks.
func (s *store) ping(ctx context.Context) error {
	return s.do(ctx, func(ctx context.Context, conn *sql.Conn) error {
		var one int
		return conn.QueryRowContext(ctx, "SELECT 1").Scan(&one)
	})
}

// list returns the newest orders.
func (s *store) list(ctx context.Context) ([]listedOrder, error) {
	var orders []listedOrder
	err := s.do(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		orders, err = listOrders(ctx, conn)
		return err
	})
	return orders, err
}

// insert writes an order and its first offer, and returns the order's number (nil where an earlier
// attempt had been committed unseen).
func (s *store) insert(ctx context.Context, order newOrder) (*int64, error) {
	var number *int64
	err := s.do(ctx, func(ctx context.Context, conn *sql.Conn) (err error) {
		number, err = insertOrder(ctx, conn, order)
		return err
	})
	return number, err
}

type job func(ctx context.Context, conn *sql.Conn) error

// do does the job on a connection, once more where that breaks.
func (s *store) do(ctx context.Context, job job) error {
	for failures := 1; ; failures++ {
		err := s.attempt(ctx, job, failures > 1)
		if err == nil {
			return nil
		}
		slog.Warn("database", "why", err, "attempt", failures)
		again := s.poisoned || failures == 1 && isBroken(err)
		if !again || ctx.Err() != nil {
			return err
		}
	}
}

func (s *store) attempt(ctx context.Context, job job, retry bool) error {
	limit := connectLimit
	if s.poisoned && retry {
		limit = requestLimit // ORDERS_BUG=db-poison: the retry waits for as long as the request lives ...
	}
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := s.pool.Conn(waiting)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return errNoConnection
		}
		return err
	}
	if err := job(ctx, conn); err != nil {
		if s.poisoned {
			return err // ... and an error's way out forgets to give its connection back.
		}
		conn.Close()
		return err
	}
	return conn.Close()
}

// isRefused says whether the server answered with an error.
func isRefused(err error) bool {
	var refused *mysql.MySQLError
	return errors.As(err, &refused)
}

// isBroken says whether the connection could not be made, or broke.
func isBroken(err error) bool {
	return !isRefused(err) && !errors.Is(err, errNoConnection) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

const (
	insertOrderSQL = "INSERT INTO orders (uuid, customer, city_id, city_name, price, status, created_at) " +
		"VALUES (?, ?, ?, ?, ?, 'open', ?)"
	insertOfferSQL = "INSERT INTO offers (order_uuid, amount, state, created_at) VALUES (?, ?, ?, ?) " +
		"ON DUPLICATE KEY UPDATE amount = VALUES(amount), state = VALUES(state)"
	listSQL = "SELECT o.uuid, o.customer, o.city_id, o.city_name, o.price, o.status, f.state, o.created_at " +
		"FROM orders o LEFT JOIN offers f ON f.order_uuid = o.uuid ORDER BY o.created_at DESC, o.id DESC LIMIT ?"
)

func insertOrder(ctx context.Context, conn *sql.Conn, order newOrder) (*int64, error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	// After a commit it does nothing.
	defer tx.Rollback()

	if mutated("query-extra") {
		tx.ExecContext(ctx, "SELECT COUNT(*) FROM orders")
	}
	query := reword("query-literal", insertOrderSQL, "'open'", "'done'")
	query = reword("query-ignore", query, "INSERT INTO", "INSERT IGNORE INTO")
	query = reword("query-columns", query, "(uuid, customer,", "(customer, uuid,")
	result, err := tx.ExecContext(ctx, query,
		order.uuid, pick("query-customer", order.customer, "somebody"), order.cityID+pick[int64]("query-parameter", 0, 1),
		pick("query-city-name", order.cityName, ""), order.price+pick[int64]("query-price", 0, 1), order.createdAt)
	if isOurDuplicate(err, order.uuid) {
		// The id is ours alone: an attempt whose connection broke had been committed.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	number, err := result.LastInsertId()
	if err != nil {
		return nil, err
	}
	if mutated("write-missing") {
		return &number, tx.Commit()
	}
	query = reword("offer-update", insertOfferSQL, ", state = VALUES(state)", "")
	for range pick("offer-twice", 1, 2) {
		_, err = tx.ExecContext(ctx, query,
			pick("offer-of-another", order.uuid, uuid.NewString()), order.price*pick[int64]("offer-amount", 1, 2),
			pick("offer-state", offerState(order.covered), "unsure"), order.createdAt)
		if err != nil {
			return nil, err
		}
	}
	if mutated("rollback") {
		return &number, tx.Rollback()
	}
	return &number, tx.Commit()
}

func isOurDuplicate(err error, uuid string) bool {
	var refused *mysql.MySQLError
	return errors.As(err, &refused) && refused.Number == duplicateEntry && strings.Contains(refused.Message, uuid)
}

func offerState(covered *bool) string {
	switch {
	case covered == nil:
		return "unknown"
	case *covered:
		return "covered"
	default:
		return "uncovered"
	}
}

func listOrders(ctx context.Context, conn *sql.Conn) ([]listedOrder, error) {
	query := reword("list-order", listSQL, "o.id DESC", "o.id")
	query = reword("list-join", query, "LEFT JOIN", "JOIN")
	query = reword("list-filter", query, "ORDER BY", "WHERE o.status = 'open' ORDER BY")
	rows, err := conn.QueryContext(ctx, query, pick("list-limit", 50, 51))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	orders := []listedOrder{}
	for rows.Next() {
		var order listedOrder
		var createdAt time.Time
		err := rows.Scan(&order.ID, &order.Customer, &order.CityID, &order.City,
			&order.Price, &order.Status, &order.Offer, &createdAt)
		if err != nil {
			return nil, fmt.Errorf("an order's row: %w", err)
		}
		order.CreatedAt = timestamp(createdAt)
		orders = append(orders, order)
	}
	return orders, rows.Err()
}

// timestamp writes a moment as this service does everywhere: UTC, microseconds.
func timestamp(moment time.Time) string {
	return moment.UTC().Format("2006-01-02T15:04:05.000000Z")
}

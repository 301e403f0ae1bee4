package main

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
)

// Bug is a planted defect. Each is an incident that somebody has had; specs/orders/README.md says
// which cells each turns red.
type Bug string

const (
	noBug Bug = ""
	// dbPoison: a database error leaks the connection, and the retry waits for one without end.
	dbPoison Bug = "db-poison"
	// dbSlowHealth: /healthz asks the database.
	dbSlowHealth Bug = "db-slow-health"
	// authCascade: the order routes ask user-service first and fail with it.
	authCascade Bug = "auth-cascade"
	// busBlock: an order waits for the event bus without end.
	busBlock Bug = "bus-block"
	// rebalanceStop: the consumer of events ends for good when a rebalance overtakes a commit.
	rebalanceStop Bug = "rebalance-stop"
)

// Config is what the environment says, read once at the start.
type Config struct {
	Database            *mysql.Config
	Redis               *redis.Options
	Brokers             []string
	Geo, Users, Balance string // host:port
	Issuer, JWKS        string // URLs
	Events              string // the topic that the consumer listens to
	Bug                 Bug
}

// readConfig reads the configuration through getenv. An address without a scheme gets the one that
// its reader needs, a URL is left alone; what is missing or makes no sense is refused by name.
func readConfig(getenv func(string) string) (Config, error) {
	values := map[string]string{}
	for _, name := range []string{
		"DATABASE_URL", "REDIS_URL", "KAFKA_BROKERS", "GEO_CONFIG_ADDR", "USER_SERVICE_ADDR",
		"BALANCE_API_ADDR", "OIDC_ISSUER", "OIDC_JWKS_URL",
	} {
		if values[name] = getenv(name); values[name] == "" {
			return Config{}, fmt.Errorf("%s is not set", name)
		}
	}
	database, err := databaseConfig(values["DATABASE_URL"])
	if err != nil {
		return Config{}, fmt.Errorf("DATABASE_URL: %w", err)
	}
	cache, err := redis.ParseURL(withScheme("redis", values["REDIS_URL"]))
	if err != nil {
		return Config{}, fmt.Errorf("REDIS_URL: %w", err)
	}
	bug := Bug(getenv("ORDERS_BUG"))
	switch bug {
	case noBug, dbPoison, dbSlowHealth, authCascade, busBlock, rebalanceStop:
	default:
		return Config{}, fmt.Errorf("ORDERS_BUG is %q: it is one of %s, %s, %s, %s, %s",
			bug, dbPoison, dbSlowHealth, authCascade, busBlock, rebalanceStop)
	}
	return Config{
		Database: database,
		Redis:    cache,
		Brokers:  strings.Split(values["KAFKA_BROKERS"], ","),
		Geo:      withoutScheme(values["GEO_CONFIG_ADDR"]),
		Users:    withoutScheme(values["USER_SERVICE_ADDR"]),
		Balance:  withoutScheme(values["BALANCE_API_ADDR"]),
		Issuer:   withScheme("http", values["OIDC_ISSUER"]),
		JWKS:     withScheme("http", values["OIDC_JWKS_URL"]),
		Events:   cmp.Or(getenv("EVENTS_TOPIC"), topic),
		Bug:      bug,
	}, nil
}

// databaseConfig is the driver's configuration for mysql://user:password@host:port/name.
func databaseConfig(value string) (*mysql.Config, error) {
	at, err := url.Parse(withScheme("mysql", value))
	if err != nil {
		// The error would quote the URL, and with it the password.
		return nil, fmt.Errorf("it is not a URL")
	}
	if at.Scheme != "mysql" || at.Hostname() == "" {
		return nil, fmt.Errorf("it is mysql://user:password@host:port/name")
	}
	config := mysql.NewConfig()
	config.Net = "tcp"
	config.Addr = at.Host
	if at.Port() == "" {
		config.Addr = net.JoinHostPort(at.Hostname(), "3306")
	}
	config.User = at.User.Username()
	config.Passwd, _ = at.User.Password()
	config.DBName = strings.TrimPrefix(at.Path, "/")
	config.ParseTime = true
	config.Loc = time.UTC
	return config, nil
}

func withScheme(scheme, value string) string {
	if strings.Contains(value, "://") {
		return value
	}
	return scheme + "://" + value
}

func withoutScheme(value string) string {
	return strings.TrimSuffix(strings.TrimPrefix(value, "http://"), "/")
}

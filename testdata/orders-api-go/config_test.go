package main

import (
	"strings"
	"testing"
)

func environment(changes map[string]string) func(string) string {
	return func(name string) string {
		if value, ok := changes[name]; ok {
			return value
		}
		switch name {
		case "DATABASE_URL":
			return "mysql://root:t%40st@127.0.0.1:3307/appdb"
		case "OIDC_ISSUER":
			return "https://issuer.example"
		case "ORDERS_BUG":
			return ""
		}
		return "127.0.0.1:9000"
	}
}

func TestAddressesGetASchemeAndURLsKeepTheirs(t *testing.T) {
	config, err := readConfig(environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if config.Redis.Addr != "127.0.0.1:9000" || config.Geo != "127.0.0.1:9000" {
		t.Errorf("redis %q, geo %q", config.Redis.Addr, config.Geo)
	}
	if config.Issuer != "https://issuer.example" || config.JWKS != "http://127.0.0.1:9000" {
		t.Errorf("issuer %q, keys %q", config.Issuer, config.JWKS)
	}
	db := config.Database
	if db.Addr != "127.0.0.1:3307" || db.User != "root" || db.Passwd != "t@st" || db.DBName != "appdb" {
		t.Errorf("database %+v", db)
	}
	if config.Bug != noBug {
		t.Errorf("bug %q", config.Bug)
	}
}

func TestWhatIsMissingOrUnknownIsNamed(t *testing.T) {
	for name, value := range map[string]string{
		"KAFKA_BROKERS": "", "ORDERS_BUG": "x", "DATABASE_URL": "postgres://db", "REDIS_URL": "http://cache",
	} {
		_, err := readConfig(environment(map[string]string{name: value}))
		if err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s=%q: %v", name, value, err)
		}
	}
}

func TestAPasswordIsNotQuoted(t *testing.T) {
	_, err := readConfig(environment(map[string]string{"DATABASE_URL": "mysql://root:hunter2@[::1/appdb"}))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

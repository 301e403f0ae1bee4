package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// cacheLimit is how long one operation may take, with a new connection and all.
	cacheLimit = 500 * time.Millisecond
	listTTL    = 30 * time.Second
)

// lookup is what the cache said.
type lookup string

const (
	hit    lookup = "hit"
	miss   lookup = "miss"
	bypass lookup = "bypass" // it cannot be asked
)

// cache is the list of orders in Redis: a help, never a need. A failure is logged and otherwise as
// good as a miss. The key carries the moment this process started, so that a new version never
// reads what an old one wrote.
type cache struct {
	client *redis.Client
	key    string
}

// newCache makes a client that connects in the background.
func newCache(options *redis.Options, started time.Time) *cache {
	options.DialTimeout = cacheLimit / 2
	options.ReadTimeout = cacheLimit / 2
	options.WriteTimeout = cacheLimit / 2
	options.ContextTimeoutEnabled = true
	// A pooled connection may have died unseen: one more attempt, on a new one. Whoever comes next
	// tries again.
	options.MaxRetries = 1
	options.DialerRetries = 1
	options.MinIdleConns = 2
	return &cache{
		client: redis.NewClient(options),
		key: fmt.Sprintf("%s:%d:%s", pick("cache-prefix", "orders", "order"), started.UnixMilli(),
			pick("cache-key", "list", "all")),
	}
}

// warm connects ahead of the first request.
func (c *cache) warm(ctx context.Context) {
	c.ask(ctx, func(ctx context.Context) error { return c.client.Ping(ctx).Err() })
}

// get returns the kept list.
func (c *cache) get(ctx context.Context) (list string, found lookup) {
	if mutated("cache-get-missing") {
		return "", miss
	}
	err := c.ask(ctx, func(ctx context.Context) (err error) {
		list, err = c.client.Get(ctx, c.key).Result()
		return err
	})
	switch {
	case err == nil:
		return list, hit
	case errors.Is(err, redis.Nil):
		return "", miss
	default:
		return "", bypass
	}
}

// put keeps the list.
func (c *cache) put(ctx context.Context, list string) {
	if mutated("cache-set-missing") {
		return
	}
	list = pick("cache-value", list, "{}")
	ttl := pick("cache-ttl", listTTL, listTTL+time.Second)
	ttl = pick("cache-ttl-unit", ttl, listTTL+time.Millisecond)
	ttl = pick("cache-ttl-missing", ttl, 0)
	c.ask(ctx, func(ctx context.Context) error {
		if mutated("cache-only-new") {
			return c.client.SetNX(ctx, c.key, list, ttl).Err()
		}
		return c.client.Set(ctx, c.key, list, ttl).Err()
	})
	if mutated("cache-expire") {
		c.ask(ctx, func(ctx context.Context) error { return c.client.Expire(ctx, c.key, listTTL).Err() })
	}
}

// forget forgets the list.
func (c *cache) forget(ctx context.Context) {
	if mutated("cache-not-invalidated") {
		return
	}
	c.ask(ctx, func(ctx context.Context) error {
		if mutated("cache-unlink") {
			return c.client.Unlink(ctx, c.key).Err()
		}
		return c.client.Del(ctx, c.key).Err()
	})
}

func (c *cache) ask(ctx context.Context, command func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, cacheLimit)
	defer cancel()
	err := command(ctx)
	if err != nil && !errors.Is(err, redis.Nil) {
		slog.Warn("cache", "why", err)
	}
	return err
}

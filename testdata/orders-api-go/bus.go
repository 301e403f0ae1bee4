package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	topic = "orders.events"
	group = "orders-api"
	// publishLimit is how long a request waits for its event to be delivered.
	publishLimit = time.Second
	// handledLimit is how long somebody who asks for an event waits until it is handled.
	handledLimit = 5 * time.Second
	// remembered is how many of the last events are known to be handled.
	remembered = 1000
	// A topic that has just been made may have no leader yet.
	leaderAttempts = 20
	leaderPause    = 50 * time.Millisecond
)

// event is what happened to an order.
type event struct {
	key         string // the order's id: events of one order keep their order
	payload     []byte // JSON
	traceparent string
}

// undelivered is an event that is not known to have arrived.
type undelivered struct {
	event event
	// outcome tells what became of it while the client still has it; nil when it has given up.
	outcome <-chan error
}

// bus publishes what happens to orders to Kafka, and listens to it. Publishing waits publishLimit at
// most; an event that is not delivered by then stays in an outbox in memory, from which drain sees
// to it that it is. Events may be published twice, never lost while the process lives. An event that
// is listened to is committed once it has been handled; one whose commit fails may come again.
type bus struct {
	client *kgo.Client
	events string        // the topic that is listened to
	joined chan struct{} // closed when the group has said what our part of the topic is
	blocks bool
	stops  bool

	mu     sync.Mutex
	outbox []undelivered

	handledMu sync.Mutex
	handled   []string      // keys of the last events that were handled
	more      chan struct{} // closed when there are more of them
}

// newBus makes producer and consumer in one client, which connects in the background.
func newBus(brokers []string, events string, bug Bug) (*bus, error) {
	b := &bus{
		events: events,
		joined: make(chan struct{}),
		blocks: bug == busBlock,
		stops:  bug == rebalanceStop,
		more:   make(chan struct{}),
	}
	joined := sync.OnceFunc(func() { close(b.joined) })
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.ClientID("orders-api"),
		kgo.WithLogger(busLogger{}),
		kgo.AllowAutoTopicCreation(),
		// Somebody waits for each event.
		kgo.ProducerLinger(0),
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(events),
		// A group that has committed nothing has handled nothing.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(6*time.Second),
		// Who waits for the others to rejoin waits so long.
		kgo.HeartbeatInterval(300*time.Millisecond),
		// Called for an empty part as well: there may be more members than partitions.
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { joined() }),
	)
	b.client = client
	return b, err
}

// warm waits until the topics have leaders (asking for one creates it), opens the connection that
// events will be sent on, and waits for our place in the consumer group.
func (b *bus) warm(ctx context.Context) {
	leader, err := b.waitLeader(ctx, topic)
	if err == nil && leader >= 0 {
		err = b.client.EnsureProduceConnectionIsOpen(ctx, leader)
	}
	if err == nil && b.events != topic {
		_, err = b.waitLeader(ctx, b.events)
	}
	if err != nil {
		slog.Warn("no event bus yet", "why", err)
		return
	}
	select {
	case <-b.joined:
	case <-ctx.Done():
	}
}

func (b *bus) waitLeader(ctx context.Context, topic string) (int32, error) {
	for range leaderAttempts {
		leader, err := b.leader(ctx, topic)
		if err != nil || leader >= 0 {
			return leader, err
		}
		time.Sleep(leaderPause)
	}
	return -1, nil
}

// leader is the broker that leads the topic's first partition, -1 while none does.
func (b *bus) leader(ctx context.Context, topic string) (int32, error) {
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = kmsg.StringPtr(topic)
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = append(request.Topics, asked)
	request.AllowAutoTopicCreation = true
	response, err := request.RequestWith(ctx, b.client)
	if err != nil {
		return -1, err
	}
	for _, t := range response.Topics {
		if t.ErrorCode == 0 && len(t.Partitions) > 0 && t.Partitions[0].ErrorCode == 0 {
			return t.Partitions[0].Leader, nil
		}
	}
	return -1, nil
}

// publish publishes an event, and says whether it is known to have arrived.
func (b *bus) publish(ctx context.Context, event event) bool {
	var limit <-chan time.Time
	// ORDERS_BUG=bus-block: no limit but the request's own.
	if !b.blocks {
		limit = time.After(publishLimit)
	}
	outcome := b.send(event)
	select {
	case err := <-outcome:
		if err != nil {
			b.keep(undelivered{event: event}, err.Error())
		}
		return err == nil
	case <-limit:
		b.keep(undelivered{event, outcome}, "no acknowledgement in time")
	case <-ctx.Done():
		b.keep(undelivered{event, outcome}, ctx.Err().Error())
	}
	return false
}

// send hands the event to the client, which tries until it has arrived or never can.
func (b *bus) send(event event) <-chan error {
	outcome := make(chan error, 1)
	record := &kgo.Record{
		Topic: pick("event-topic", topic, "orders.created"),
		Key:   []byte(pick("event-key", event.key, "order")),
		Value: pick("event-empty", event.payload, []byte{}),
		Headers: []kgo.RecordHeader{
			{Key: "content-type", Value: []byte(pick("event-content-type", "application/json", "text/plain"))},
			{Key: traceparent, Value: []byte(event.traceparent)},
		},
	}
	record.Key = pick("event-key-missing", record.Key, nil)
	record.Headers = pick("event-header-missing", record.Headers, record.Headers[:1])
	// The record outlives the request that it came from, so it has a context of its own.
	b.client.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) { outcome <- err })
	return outcome
}

func (b *bus) keep(u undelivered, why string) {
	slog.Warn("event kept in the outbox", "order", u.event.key, "why", why)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outbox = append(b.outbox, u)
}

// drainEvery looks after the outbox until the context ends.
func (b *bus) drainEvery(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			b.drain()
		case <-ctx.Done():
			return
		}
	}
}

// drain takes what has arrived out of the outbox and sends again what has failed.
func (b *bus) drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	waiting := b.outbox[:0]
	for _, u := range b.outbox {
		if u.outcome == nil {
			u.outcome = b.send(u.event)
		}
		select {
		case err := <-u.outcome:
			if err == nil {
				slog.Info("event delivered from the outbox", "order", u.event.key)
				continue
			}
			u.outcome = nil
		default:
		}
		waiting = append(waiting, u)
	}
	b.outbox = waiting
}

// listen handles what arrives until the context ends.
func (b *bus) listen(ctx context.Context) {
	seen := 0
	for ctx.Err() == nil {
		fetches := b.client.PollFetches(ctx)
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			if !errors.Is(err, context.Canceled) {
				slog.Warn("event bus", "topic", topic, "partition", partition, "why", err)
			}
		})
		for _, record := range fetches.Records() {
			seen++
			slog.Info("event seen", "topic", record.Topic, "offset", record.Offset, "seen", seen)
			err := b.client.CommitRecords(ctx, record)
			b.remember(string(record.Key))
			if err != nil {
				slog.Warn("commit", "offset", record.Offset, "why", err)
				// ORDERS_BUG=rebalance-stop: takes it for the end.
				if b.stops {
					return
				}
			}
		}
	}
}

func (b *bus) remember(key string) {
	b.handledMu.Lock()
	defer b.handledMu.Unlock()
	if len(b.handled) == remembered {
		b.handled = b.handled[1:]
	}
	b.handled = append(b.handled, key)
	close(b.more)
	b.more = make(chan struct{})
}

// handles says whether the event with this key has been handled here; it waits for handledLimit at
// most.
func (b *bus) handles(ctx context.Context, key string) bool {
	ctx, cancel := context.WithTimeout(ctx, handledLimit)
	defer cancel()
	for {
		b.handledMu.Lock()
		known, more := slices.Contains(b.handled, key), b.more
		b.handledMu.Unlock()
		if known {
			return true
		}
		select {
		case <-more:
		case <-ctx.Done():
			return false
		}
	}
}

// leave leaves the consumer group, so that the next member need not wait for our session to end.
func (b *bus) leave(ctx context.Context) {
	if err := b.client.LeaveGroupContext(ctx); err != nil {
		slog.Warn("leaving the consumer group", "why", err)
	}
}

// busLogger passes the client's complaints on.
type busLogger struct{}

func (busLogger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (busLogger) Log(_ kgo.LogLevel, message string, pairs ...any) {
	slog.Warn("event bus: "+message, pairs...)
}

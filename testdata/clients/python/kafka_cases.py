"""Kafka: confluent-kafka (librdkafka) and kafka-python."""

import os
import threading
import time

import confluent_kafka as ck
from confluent_kafka import admin as cka
import kafka as kp
from kafka import admin as kpa

BROKERS = os.environ["BUS"]


def case_confluent_admin():
    a = cka.AdminClient({"bootstrap.servers": BROKERS})
    for f in a.create_topics([cka.NewTopic("ck-admin", 3, 1, config={"retention.ms": "1000"})]).values():
        f.result(10)
    try:
        a.create_topics([cka.NewTopic("ck-admin", 1, 1)])["ck-admin"].result(10)
        raise AssertionError("a topic was made twice")
    except ck.KafkaException as e:
        assert e.args[0].code() == ck.KafkaError.TOPIC_ALREADY_EXISTS, e
    topics = a.list_topics(timeout=10).topics
    assert len(topics["ck-admin"].partitions) == 3
    res = cka.ConfigResource(cka.ResourceType.TOPIC, "ck-admin")
    try:
        a.describe_configs([res])[res].result(10)
    except ck.KafkaException as e:  # a refusal that names itself is fine
        assert e.args[0].code() == ck.KafkaError._UNSUPPORTED_FEATURE, e
    a.list_consumer_groups().result(10)
    a.delete_topics(["ck-admin"])["ck-admin"].result(10)
    deadline = time.monotonic() + 10
    while "ck-admin" in a.list_topics(timeout=10).topics and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "ck-admin" not in a.list_topics(timeout=10).topics


def case_confluent_codecs():
    topic = "ck-codecs"
    a = cka.AdminClient({"bootstrap.servers": BROKERS})
    a.create_topics([cka.NewTopic(topic, 1, 1)])[topic].result(10)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        p = ck.Producer({"bootstrap.servers": BROKERS, "acks": "all", "enable.idempotence": True, "compression.type": codec, "linger.ms": 5})
        done = []
        for i in range(20):
            p.produce(topic, key=codec, value=f"{codec}-{i}-" + "x" * 100, headers={"n": str(i)}, on_delivery=lambda e, m: done.append(e))
        assert p.flush(10) == 0 and done == [None] * 20, done
    c = ck.Consumer({"bootstrap.servers": BROKERS, "group.id": "ck-codecs", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    c.subscribe([topic])
    got = []
    while len(got) < 100:
        m = c.poll(20)
        assert m is not None and m.error() is None, m and m.error()
        got.append((m.key(), m.value().split(b"-")[1], m.headers()))
    assert got[41] == (b"snappy", b"1", [("n", b"1")]), got[41]
    c.commit(asynchronous=False)
    tp = ck.TopicPartition(topic, 0)
    assert c.committed([tp], timeout=10)[0].offset == 100
    assert c.get_watermark_offsets(tp, timeout=10) == (0, 100)
    assert c.offsets_for_times([ck.TopicPartition(topic, 0, 1)], timeout=10)[0].offset == 0
    c.close()


def case_confluent_rebalance():
    topic = "ck-two"
    a = cka.AdminClient({"bootstrap.servers": BROKERS})
    a.create_topics([cka.NewTopic(topic, 4, 1)])[topic].result(10)
    settings = {"bootstrap.servers": BROKERS, "group.id": "ck-two", "auto.offset.reset": "earliest", "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    one, two = ck.Consumer(settings), ck.Consumer(settings)
    one.subscribe([topic])
    until = time.monotonic() + 30
    while len(one.assignment()) < 4 and time.monotonic() < until:
        one.poll(0.1)
    assert len(one.assignment()) == 4
    two.subscribe([topic])
    while len(two.assignment()) < 2 and time.monotonic() < until:
        one.poll(0.1)
        two.poll(0.1)
    assert (len(one.assignment()), len(two.assignment())) == (2, 2)
    one.close()
    while len(two.assignment()) < 4 and time.monotonic() < until:
        two.poll(0.1)
    assert len(two.assignment()) == 4
    two.close()


def case_confluent_transaction():
    p = ck.Producer({"bootstrap.servers": BROKERS, "transactional.id": "ck-tx", "transaction.timeout.ms": 5000})
    try:
        p.init_transactions(10)
    except ck.KafkaException as e:
        print("confluent transactions:", e)
        assert not e.args[0].retriable(), e
        return
    p.begin_transaction()
    p.produce("ck-tx", b"x")
    p.commit_transaction(10)


def case_kafka_python():
    topic = "kp-items"
    a = kpa.KafkaAdminClient(bootstrap_servers=BROKERS)
    a.create_topics([kpa.NewTopic(topic, 2, 1)])
    assert topic in a.list_topics()
    try:
        a.create_topics([kpa.NewTopic(topic, 2, 1)])
        raise AssertionError("a topic was made twice")
    except kp.errors.TopicAlreadyExistsError:
        pass
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        p = kp.KafkaProducer(bootstrap_servers=BROKERS, acks="all", compression_type=codec)
        sent = [p.send(topic, key=b"k%d" % i, value=b"v" * 50, partition=i % 2) for i in range(10)]
        p.flush(10)
        assert {f.get(10).partition for f in sent} == {0, 1}
        p.close()
    c = kp.KafkaConsumer(topic, bootstrap_servers=BROKERS, group_id="kp", auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=20000)
    got = [next(c) for _ in range(50)]
    assert {m.value for m in got} == {b"v" * 50}
    c.commit()
    parts = [kp.TopicPartition(topic, n) for n in (0, 1)]
    assert c.end_offsets(parts) == {parts[0]: 25, parts[1]: 25} and c.beginning_offsets(parts)[parts[0]] == 0
    assert c.committed(parts[0]) == 25
    assert c.offsets_for_times({parts[0]: 1})[parts[0]].offset == 0
    c.seek(parts[0], 24)
    assert next(c).offset == 24
    c.close()
    assert ("kp", "consumer") in a.list_consumer_groups()
    assert a.list_consumer_group_offsets("kp")[parts[0]].offset == 25
    assert a.describe_consumer_groups(["kp"])[0].state == "Empty"
    a.delete_topics([topic])
    a.close()

"""Redis: redis-py in both versions of the protocol."""

import os

import redis

HOST, PORT = os.environ["CACHE"].rsplit(":", 1)


def drive(protocol):
    r = redis.Redis(host=HOST, port=int(PORT), protocol=protocol, decode_responses=True, client_name=f"p{protocol}")
    own = f"p{protocol}:"
    assert r.ping() and r.set(own + "a", "1", ex=60) and r.get(own + "a") == "1"
    assert r.set(own + "a", "2", nx=True) is None
    assert r.incrby(own + "n", 5) == 5 and r.incrbyfloat(own + "f", 1.5) == 1.5
    assert r.ttl(own + "a") == 60 and r.ttl(own + "none") == -2
    r.hset(own + "h", mapping={"x": "1", "y": "2"})
    assert r.hgetall(own + "h") == {"x": "1", "y": "2"} and r.hmget(own + "h", "x", "z") == ["1", None]
    r.rpush(own + "l", "a", "b", "c")
    assert r.lrange(own + "l", 0, -1) == ["a", "b", "c"] and tuple(r.blpop(own + "l", 1)) == (own + "l", "a")
    r.sadd(own + "s", "m", "n")
    assert r.smembers(own + "s") == {"m", "n"} and r.sismember(own + "s", "m") == 1
    r.zadd(own + "z", {"lo": 1, "hi": 2.5})
    assert r.zrange(own + "z", 0, -1, withscores=True) in ([("lo", 1.0), ("hi", 2.5)], [["lo", 1.0], ["hi", 2.5]])
    assert r.zscore(own + "z", "hi") == 2.5
    with r.pipeline(transaction=False) as p:
        for i in range(50):
            p.set(f"{own}many:{i}", i)
        assert p.execute() == [True] * 50
    assert sorted(r.scan_iter(own + "many:*", count=7)) == sorted(f"{own}many:{i}" for i in range(50))
    with r.pipeline() as p:
        p.watch(own + "n")
        now = int(p.get(own + "n"))
        p.multi()
        p.set(own + "n", now + 1).get(own + "n")
        assert p.execute() == [True, "6"]
    with r.pipeline() as p:
        p.watch(own + "n")
        r.set(own + "n", 0)  # another connection
        p.multi()
        p.incr(own + "n")
        try:
            p.execute()
            raise AssertionError("a watched key had changed")
        except redis.WatchError:
            pass
    with r.pubsub() as s:
        s.subscribe(own + "news")
        s.psubscribe(own + "w*")
        assert [s.get_message(timeout=5)["type"] for _ in range(2)] == ["subscribe", "psubscribe"]
        assert r.publish(own + "news", "hi") == 1 and r.publish(own + "weather", "sun") == 1
        assert [s.get_message(timeout=5)["data"] for _ in range(2)] == ["hi", "sun"]
        s.unsubscribe()
        s.punsubscribe()
    try:
        r.lpush(own + "a", "x")
        raise AssertionError("a string is no list")
    except redis.ResponseError as e:
        assert str(e).startswith("WRONGTYPE"), e
    try:
        r.eval("return 1", 0)
        raise AssertionError("a script ran")
    except redis.ResponseError as e:
        assert "EVAL" in str(e).upper(), e
    try:
        with r.lock(own + "lock", timeout=5, blocking_timeout=2):
            pass
    except redis.ResponseError as e:  # its release is a script
        assert "EVALSHA" in str(e).upper(), e
    assert r.info("server")["redis_version"] and r.dbsize() > 50 and r.client_getname() == f"p{protocol}"
    r.close()


def case_redis_py_resp2():
    drive(2)


def case_redis_py_resp3():
    drive(3)

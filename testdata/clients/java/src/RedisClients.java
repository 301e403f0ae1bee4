import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisCommandExecutionException;
import io.lettuce.core.ScanArgs;
import io.lettuce.core.ScanIterator;
import io.lettuce.core.SetArgs;
import io.lettuce.core.pubsub.RedisPubSubAdapter;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.Pipeline;
import redis.clients.jedis.RedisProtocol;
import redis.clients.jedis.Response;
import redis.clients.jedis.Transaction;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.ScanParams;
import redis.clients.jedis.params.SetParams;

/** Redis: Jedis (RESP2 and 3) and Lettuce (which speaks RESP3). */
class RedisClients {
    static final String ADDR = System.getenv("CACHE");

    static void jedis() throws Exception {
        String[] parts = ADDR.split(":");
        HostAndPort where = new HostAndPort(parts[0], Integer.parseInt(parts[1]));
        for (RedisProtocol protocol : RedisProtocol.values()) {
            String own = "jd:" + protocol + ":";
            var config = DefaultJedisClientConfig.builder().protocol(protocol).clientName("jedis").build();
            try (JedisPooled r = new JedisPooled(where, config)) {
                Serve.equal(r.set(own + "a", "1", SetParams.setParams().ex(60)), "OK");
                Serve.equal(r.get(own + "a"), "1");
                Serve.equal(r.incrBy(own + "n", 5), 5L);
                r.hset(own + "h", Map.of("x", "1"));
                Serve.equal(r.hgetAll(own + "h"), Map.of("x", "1"));
                r.zadd(own + "z", Map.of("lo", 1.0, "hi", 2.5));
                Serve.equal(r.zrangeWithScores(own + "z", 0, -1).get(1).getScore(), 2.5);
                Serve.equal(r.blpop(1, own + "none") == null, true);
                try (Pipeline p = r.pipelined()) {
                    List<Response<String>> all = new ArrayList<>();
                    for (int i = 0; i < 20; i++) all.add(p.set(own + "many:" + i, "" + i));
                    p.sync();
                    for (var one : all) Serve.equal(one.get(), "OK");
                }
                int found = 0;
                String cursor = "0";
                do {
                    var page = r.scan(cursor, new ScanParams().match(own + "many:*").count(7));
                    found += page.getResult().size();
                    cursor = page.getCursor();
                } while (!cursor.equals("0"));
                Serve.equal(found, 20);
                try {
                    r.lpush(own + "a", "x");
                    throw new AssertionError("a string is no list");
                } catch (JedisDataException e) {
                    Serve.check(e.getMessage().startsWith("WRONGTYPE"), e);
                }
                try {
                    r.eval("return 1");
                    throw new AssertionError("a script ran");
                } catch (JedisDataException e) {
                    Serve.check(e.getMessage().toUpperCase().contains("EVAL"), e);
                }
            }
            try (Jedis r = new Jedis(where, config); Jedis other = new Jedis(where, config)) {
                r.watch(own + "n");
                other.set(own + "n", "0");
                Transaction lost = r.multi();
                lost.incr(own + "n");
                Serve.check(lost.exec() == null, "a watched key had changed");
                Transaction kept = r.multi();
                kept.incr(own + "n");
                kept.get(own + "n");
                Serve.equal(kept.exec(), List.of(1L, "1"));
            }
        }
    }

    static void lettuce() throws Exception {
        RedisClient client = RedisClient.create("redis://" + ADDR);
        try (var connection = client.connect(); var listening = client.connectPubSub()) {
            var r = connection.sync();
            Serve.equal(r.set("lt:a", "1", SetArgs.Builder.ex(60)), "OK");
            Serve.equal(r.incrby("lt:n", 5), 5L);
            r.hset("lt:h", Map.of("x", "1"));
            Serve.equal(r.hgetall("lt:h"), Map.of("x", "1"));
            r.zadd("lt:z", 2.5, "hi");
            Serve.equal(r.zrangeWithScores("lt:z", 0, -1).get(0).getScore(), 2.5);
            for (int i = 0; i < 20; i++) connection.async().set("lt:many:" + i, "" + i);
            int found = 0;
            for (var keys = ScanIterator.scan(r, ScanArgs.Builder.matches("lt:many:*").limit(7)); keys.hasNext(); keys.next()) found++;
            Serve.equal(found, 20);
            r.multi();
            r.incr("lt:n");
            Serve.equal(r.exec().<Long>get(0), 6L);
            CompletableFuture<String> heard = new CompletableFuture<>();
            listening.addListener(new RedisPubSubAdapter<>() {
                @Override public void message(String channel, String message) {
                    heard.complete(channel + " " + message);
                }
            });
            listening.sync().subscribe("lt:news");
            r.publish("lt:news", "hi");
            Serve.equal(heard.get(5, TimeUnit.SECONDS), "lt:news hi");
            try {
                r.lpush("lt:a", "x");
                throw new AssertionError("a string is no list");
            } catch (RedisCommandExecutionException e) {
                Serve.check(e.getMessage().startsWith("WRONGTYPE"), e);
            }
        } finally {
            client.shutdown(0, 2, TimeUnit.SECONDS);
        }
    }
}

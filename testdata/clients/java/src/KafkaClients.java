import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Kafka: the Apache client. */
class KafkaClients {
    static Map<String, Object> settings(Map<String, Object> more) {
        Map<String, Object> all = new HashMap<>(more);
        all.put("bootstrap.servers", System.getenv("BUS"));
        return all;
    }

    static KafkaConsumer<String, String> consumer(String group) {
        return new KafkaConsumer<>(settings(Map.of(
            "group.id", group, "auto.offset.reset", "earliest", "enable.auto.commit", "false", "session.timeout.ms", "6000", "heartbeat.interval.ms", "500")),
            new StringDeserializer(), new StringDeserializer());
    }

    static void run() throws Exception {
        String topic = "java-items";
        try (Admin admin = Admin.create(settings(Map.of()))) {
            admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get(10, TimeUnit.SECONDS);
            try {
                admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get(10, TimeUnit.SECONDS);
                throw new AssertionError("a topic was made twice");
            } catch (ExecutionException e) {
                Serve.check(e.getCause() instanceof TopicExistsException, e);
            }
            Serve.check(admin.listTopics().names().get().contains(topic), "topics");
            Serve.equal(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size(), 2);
            Serve.equal(admin.describeCluster().nodes().get().size(), 1);
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                try (var p = new KafkaProducer<>(settings(Map.of("acks", "all", "compression.type", codec, "linger.ms", "5")), new StringSerializer(), new StringSerializer())) {
                    for (int i = 0; i < 10; i++) p.send(new ProducerRecord<>(topic, i % 2, "k" + i, codec + "-" + i));
                    p.flush();
                    Serve.check(p.send(new ProducerRecord<>(topic, 0, "last", codec)).get(10, TimeUnit.SECONDS).hasOffset(), "offset");
                }
            }
            List<TopicPartition> parts = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
            try (var one = consumer("java"); var two = consumer("java")) {
                one.subscribe(List.of(topic));
                List<ConsumerRecord<String, String>> got = new ArrayList<>();
                long until = System.nanoTime() + Duration.ofSeconds(20).toNanos();
                while (got.size() < 55 && System.nanoTime() < until) one.poll(Duration.ofMillis(200)).forEach(got::add);
                Serve.equal(got.size(), 55);
                Serve.equal(got.stream().filter(r -> r.value().equals("zstd-3") && r.partition() == 1).count(), 1L);
                one.commitSync();
                Serve.equal(one.committed(Set.copyOf(parts)).get(parts.get(0)).offset(), 30L);
                Serve.equal(one.endOffsets(parts), Map.of(parts.get(0), 30L, parts.get(1), 25L));
                Serve.equal(one.offsetsForTimes(Map.of(parts.get(0), 1L)).get(parts.get(0)).offset(), 0L);
                two.subscribe(List.of(topic));
                while (two.assignment().size() != 1 && System.nanoTime() < until) {
                    two.poll(Duration.ofMillis(100));
                    one.poll(Duration.ofMillis(100));
                }
                Serve.equal(one.assignment().size(), 1);
            }
            Serve.equal(admin.listConsumerGroupOffsets("java").partitionsToOffsetAndMetadata().get().get(parts.get(0)), new OffsetAndMetadata(30, ""));
            Serve.check(admin.listConsumerGroups().all().get().stream().anyMatch(g -> g.groupId().equals("java")), "groups");
            Serve.equal(admin.describeConsumerGroups(List.of("java")).all().get().get("java").members().size(), 0);
            Serve.equal(admin.listOffsets(Map.of(parts.get(0), OffsetSpec.latest())).all().get().get(parts.get(0)).offset(), 30L);
            admin.deleteTopics(List.of(topic)).all().get(10, TimeUnit.SECONDS);
        }
    }

    static void transaction() {
        var settings = settings(Map.of("transactional.id", "java-tx", "max.block.ms", "8000"));
        try (var p = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            p.initTransactions();
            p.beginTransaction();
            p.send(new ProducerRecord<>("java-tx", "k", "v"));
            p.commitTransaction();
        } catch (KafkaException e) { // a refusal, not a wait in vain
            Serve.check(!(e instanceof org.apache.kafka.common.errors.TimeoutException), e);
            System.out.println("transactions: " + e);
        }
    }
}

// Kafka: kafkajs.
const assert = require('assert');
const { Kafka, CompressionTypes, logLevel } = require('kafkajs');

const client = new Kafka({ clientId: 'node', brokers: [process.env.BUS], logLevel: logLevel.NOTHING, retry: { retries: 3 } });

async function kafkajs() {
  const topic = 'js-items';
  const admin = client.admin();
  await admin.connect();
  assert.strictEqual(await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] }), true);
  assert.ok((await admin.listTopics()).includes(topic));
  for (const idempotent of [false, true]) {
    const producer = client.producer({ idempotent });
    await producer.connect();
    for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
      const messages = [...Array(5).keys()].map((i) => ({ key: `k${i}`, value: `v${i}`, headers: { n: String(i) }, partition: i % 2 }));
      await producer.send({ topic, acks: -1, compression, messages });
    }
    await producer.disconnect();
  }
  const consumer = client.consumer({ groupId: 'js', sessionTimeout: 6000, heartbeatInterval: 500 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const got = [];
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, (event) => reject(event.payload.error));
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        got.push(`${partition}/${message.key}/${message.value}/${message.headers.n}`);
        if (got.length === 20) resolve();
      },
    }).catch(reject);
  });
  assert.strictEqual(got.filter((line) => line === '1/k3/v3/3').length, 4);
  await consumer.commitOffsets([{ topic, partition: 0, offset: '12' }]);
  await consumer.disconnect();
  const [{ partitions }] = await admin.fetchOffsets({ groupId: 'js', topics: [topic] });
  assert.strictEqual(partitions.find((p) => p.partition === 0).offset, '12');
  const ends = await admin.fetchTopicOffsets(topic);
  assert.deepStrictEqual(ends.map((p) => Number(p.high)).sort(), [12, 8].sort());
  const { groups } = await admin.listGroups();
  assert.ok(groups.some((g) => g.groupId === 'js'));
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
}

module.exports = { kafkajs };

// Redis: ioredis.
const assert = require('assert');
const Redis = require('ioredis');

const [host, port] = process.env.CACHE.split(':');

async function ioredis() {
  const r = new Redis({ host, port: Number(port), maxRetriesPerRequest: 1 });
  assert.strictEqual(await r.set('io:a', '1', 'EX', 60), 'OK');
  assert.strictEqual(await r.get('io:a'), '1');
  assert.strictEqual(await r.incrby('io:n', 5), 5);
  await r.hset('io:h', { x: 1, y: 2 });
  assert.deepStrictEqual(await r.hgetall('io:h'), { x: '1', y: '2' });
  await r.zadd('io:z', 1, 'lo', 2.5, 'hi');
  assert.deepStrictEqual(await r.zrange('io:z', 0, -1, 'WITHSCORES'), ['lo', '1', 'hi', '2.5']);
  const piped = r.pipeline();
  for (let i = 0; i < 20; i++) piped.set(`io:many:${i}`, i);
  piped.lpush('io:a', 'x');
  const answers = await piped.exec();
  assert.strictEqual(answers.length, 21);
  assert.match(answers[20][0].message, /^WRONGTYPE/);
  const found = [];
  for await (const keys of r.scanStream({ match: 'io:many:*', count: 7 })) found.push(...keys);
  assert.strictEqual(new Set(found).size, 20);
  assert.deepStrictEqual(await r.multi().incr('io:n').get('io:n').exec(), [[null, 6], [null, '6']]);
  await r.watch('io:n');
  const other = r.duplicate();
  await other.set('io:n', 0);
  assert.strictEqual(await r.multi().incr('io:n').exec(), null);
  await other.subscribe('io:news');
  const heard = new Promise((resolve) => other.once('message', (channel, text) => resolve([channel, text])));
  assert.strictEqual(await r.publish('io:news', 'hi'), 1);
  assert.deepStrictEqual(await heard, ['io:news', 'hi']);
  await other.unsubscribe();
  await assert.rejects(r.eval('return 1', 0), /eval/i);
  await other.quit();
  await r.quit();
}

module.exports = { ioredis };

// MySQL: mysql2, in text and in prepared statements.
const assert = require('assert');
const mysql = require('mysql2/promise');

const [host, port] = process.env.DB.split(':');
const where = { host, port: Number(port), user: 'root', password: 'test', database: 'appdb' };

async function mysql2() {
  const pool = mysql.createPool({ ...where, connectionLimit: 2, timezone: 'Z' });
  await pool.query('CREATE TABLE node_items (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64) NOT NULL UNIQUE,'
    + ' price DECIMAL(10,2), at DATETIME(3), raw VARBINARY(16), doc JSON, flag BOOLEAN NOT NULL DEFAULT FALSE)');
  const at = new Date('2024-05-06T07:08:09.123Z');
  const raw = Buffer.from([0, 255, 39, 92]);
  const [made] = await pool.query('INSERT INTO node_items SET ?', { name: 'one', price: 12.5, at, raw, doc: '{"a":1}' });
  assert.deepStrictEqual([made.affectedRows, made.insertId], [1, 1]);
  const [more] = await pool.execute(
    'INSERT INTO node_items (name, price, at, raw, doc, flag) VALUES (?, ?, ?, ?, ?, ?)', ['two', '3.25', at, raw, { a: 2 }, true]);
  assert.strictEqual(more.insertId, 2);
  const [bulk] = await pool.query('INSERT INTO node_items (name, price) VALUES ?', [[['three', 1], ['vier ß 🦀', null]]]);
  assert.strictEqual(bulk.affectedRows, 2);
  for (const ask of ['query', 'execute']) {
    const [rows, fields] = await pool[ask]('SELECT * FROM node_items WHERE id <= ? ORDER BY id', [2]);
    assert.deepStrictEqual(fields.map((f) => f.name), ['id', 'name', 'price', 'at', 'raw', 'doc', 'flag']);
    assert.deepStrictEqual({ ...rows[0] }, { id: 1, name: 'one', price: '12.50', at, raw, doc: { a: 1 }, flag: 0 });
    assert.deepStrictEqual({ ...rows[1] }, { id: 2, name: 'two', price: '3.25', at, raw, doc: { a: 2 }, flag: 1 });
  }
  const db = await pool.getConnection();
  await db.beginTransaction();
  const [changed] = await db.execute('UPDATE node_items SET price = price + 1 WHERE name LIKE ?', ['%o%']);
  assert.deepStrictEqual([changed.affectedRows, changed.changedRows], [2, 2]);
  await db.rollback();
  await assert.rejects(db.query('INSERT INTO node_items (name) VALUES (?)', ['one']), { code: 'ER_DUP_ENTRY', errno: 1062, sqlState: '23000' });
  await assert.rejects(db.query('SELECT * FROM nowhere'), { code: 'ER_NO_SUCH_TABLE' });
  await db.changeUser({ user: 'root', password: 'test', database: 'appdb' });
  await db.ping();
  const [[sums]] = await db.query('SELECT SUM(price) AS s, COUNT(*) AS n, NOW() AS t FROM node_items');
  assert.deepStrictEqual([sums.s, sums.n, sums.t instanceof Date], ['16.75', 4, true]);
  db.release();
  const several = await mysql.createConnection({ ...where, multipleStatements: true });
  const [[[first], [second]]] = await several.query('SELECT 1 AS a; SELECT 2 AS b');
  assert.deepStrictEqual([{ ...first }, { ...second }], [{ a: 1 }, { b: 2 }]);
  await several.end();
  await pool.end();
}

module.exports = { mysql2 };

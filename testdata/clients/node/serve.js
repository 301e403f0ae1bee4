// `POST /run/NAME` runs the case of that name: 200 and `ok`, or 500 and why it failed.
const http = require('http');
const cases = { ...require('./mysql_cases'), ...require('./redis_cases'), ...require('./kafka_cases') };

http.createServer(async (request, response) => {
  const name = request.url.split('/').pop();
  try {
    if (request.method === 'POST') await cases[name]();
    response.end('ok');
  } catch (failed) {
    response.statusCode = 500;
    const at = (failed.stack || '').split('\n').find((line) => line.includes('_cases.js')) || '';
    response.end(`${failed.name}: ${failed.message} ${at.trim()}`);
  }
}).listen(Number(process.env.PORT || 8080), '127.0.0.1');

// The JavaScript of recipes.md, run as it stands there, with replies that are lost and a namespace that is full.
//
// Usage: NODE_PATH=… recipes.js HOST PORT [UNIX_SOCKET]

'use strict';

const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { pathToFileURL } = require('node:url');
const { Logger } = require('@valkey/valkey-glide');
const { createClient } = require('redis');
const { check, counts } = require('./checks.js');

const PAGE = path.join(__dirname, '../../recipes.md');
const HEADING = '\n## AWS Lambda in TypeScript\n';
const DEADLINE_MS = 30_000;

// A proxy that closes the connection instead of passing on the reply to the next SET, once after each `loseNext`.
function losesReplies(host, port) {
  const proxy = { isArmed: false, lost: 0, loseNext: () => (proxy.isArmed = true) };
  const server = net.createServer((near) => {
    const far = net.connect(port, host);
    let losesNext = false;
    near.on('data', (request) => {
      losesNext = proxy.isArmed && /\r\nSET\r\n/i.test(request);
      if (losesNext) proxy.isArmed = false;
      far.write(request);
    });
    far.on('data', (reply) => {
      if (!losesNext) return near.write(reply);
      proxy.lost += 1;
      near.destroy();
      far.destroy();
    });
    for (const [side, other] of [[near, far], [far, near]]) {
      side.on('error', () => {});
      side.on('close', () => other.destroy());
    }
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve({ proxy, port: server.address().port })));
}

function blocks() {
  const section = fs.readFileSync(PAGE, 'utf8').split(HEADING)[1].split('\n## ')[0];
  return [...section.matchAll(/^```js\n(.*?)^```/gms)].map((found) => found[1]);
}

// The handler of the page, as a module beside the packages that it imports.
async function handlerOf(name, code, port) {
  if (!code.includes('6623')) throw new Error(`${name}: the block names no port`);
  const file = path.join(process.env.NODE_PATH, '..', `recipe-${name}.mjs`);
  fs.writeFileSync(file, code.replaceAll('6623', port));
  try {
    return (await import(pathToFileURL(file))).handler;
  } finally {
    fs.rmSync(file);
  }
}

const context = {
  functionName: 'pay',
  functionVersion: '1',
  invokedFunctionArn: 'arn:aws:lambda:eu-west-1:123456789012:function:pay',
  memoryLimitInMB: '128',
  awsRequestId: 'request',
  logGroupName: 'group',
  logStreamName: 'stream',
  leftMs: 60_000,
  getRemainingTimeInMillis: () => context.leftMs,
};

async function errorOf(promise) {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    return error.name;
  }
}

// As Lambda's queue does: again, until it comes to an end.
async function ends(handler, event) {
  for (const end = Date.now() + DEADLINE_MS; ; ) {
    try {
      return await handler(event, context);
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

async function drive(name, handler, { direct, proxy }) {
  const charged = {};
  let during = () => {};
  globalThis.charge = async (order) => {
    charged[order] = (charged[order] ?? 0) + 1;
    await during();
    return `payment ${order} ${charged[order]}`;
  };

  const order = (id, amount = 20) => ({ order: `${name}-${id}`, amount });
  const first = await handler(order(17), context);
  check(`${name}: a repeat has the same answer`, await handler(order(17), context), first);
  check(`${name}: charged once`, charged[`${name}-17`], 1);
  await handler(order(17, 21), context);
  check(`${name}: another amount is another event`, charged[`${name}-17`], 2);

  let inner;
  during = async () => (inner = await errorOf(handler(order('busy'), context)));
  await handler(order('busy'), context);
  check(`${name}: while it works, a repeat is told so`, inner, 'IdempotencyAlreadyInProgressError');
  during = () => {};

  context.leftMs = 300;
  for (let number = 0; number < 3; number += 1) {
    const event = order(`claim-${number}`);
    proxy.loseNext();
    await ends(handler, event);
    check(`${name}: the claim's reply is lost: charged once`, charged[event.order], 1);
  }
  check(`${name}: replies were lost`, proxy.lost, 3);
  proxy.lost = 0;

  const late = order('answer');
  during = proxy.loseNext;
  await ends(handler, late);
  during = () => {};
  await ends(handler, late);
  check(`${name}: the answer's reply is lost: the answer is there`, charged[late.order], 1);
  check(`${name}: that reply was lost`, proxy.lost, 1);
  proxy.lost = 0;
  context.leftMs = 60_000;

  await direct.sendCommand(['NS', 'SET', 'db1', 'MAXKEYS', '1']);
  check(`${name}: full: an error`, await errorOf(handler(order('full'), context)), 'IdempotencyPersistenceLayerError');
  check(`${name}: full: nothing was done`, charged[`${name}-full`], undefined);
  await direct.sendCommand(['NS', 'SET', 'db1', 'MAXKEYS', '0']);
}

async function main() {
  const [host, port] = process.argv.slice(2);
  const direct = await createClient({ url: `redis://${host}:${port}/1` }).connect();
  await direct.flushDb();
  const { proxy, port: losing } = await losesReplies(host, Number(port));
  // The clients would tell of each connection that the proxy closes.
  console.error = () => {};
  Logger.init('off');

  const [main, glide, ioredis] = blocks();
  const ofClient = /^const client = .*?^await client\.connect\(\);\n/ms;
  if (!ofClient.test(main)) throw new Error('the page makes its client otherwise');
  const withClient = (other) => other + main.replace(/^import .* from 'redis';\n/m, '').replace(ofClient, '');
  const clients = { 'node-redis': main, 'valkey-glide': withClient(glide), ioredis: withClient(ioredis) };
  for (const [name, code] of Object.entries(clients)) {
    await drive(name, await handlerOf(name, code, losing), { direct, proxy });
  }

  // What the page warns of.
  const wrapped = await handlerOf('wrapped', main, port);
  let began = 0;
  globalThis.charge = async () => (began += 1) === 1 && wrapped({ order: 'no context', amount: 1 });
  await wrapped({ order: 'no context', amount: 1 });
  check('no context: a repeat runs beside the first', began, 2);
  const bare = await handlerOf('bare', withClient(glide.replace('const glide', 'const client').replace(/^const client = \{.*?^\};\n/ms, '')), port);
  let charges = 0;
  globalThis.charge = async () => (charges += 1);
  await bare({ order: 'bare', amount: 1 }, context);
  await bare({ order: 'bare', amount: 1 }, context);
  check('valkey-glide as it is: a repeat runs', charges, 2);
  const plain = await handlerOf('plain', withClient("import { Redis } from 'ioredis';\nconst client = new Redis(6623, '127.0.0.1');\n"), port);
  check('ioredis as it is: refused', await errorOf(plain({ order: 'plain', amount: 1 }, context)), 'IdempotencyPersistenceLayerError');
}

main()
  .catch((error) => check('reached its end', String(error.stack), ''))
  .finally(() => {
    console.log(`${counts.passed} passed, ${counts.failed} failed`);
    process.exit(counts.failed > 0 ? 1 : 0);
  });

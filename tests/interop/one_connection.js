// Two holders of idempotency records on one connection, with ioredis and node-redis, unchanged.
// Usage: one_connection.js HOST PORT [UNIX_SOCKET]
//
// Both libraries send what all tasks ask on one connection. In each round a task claims a key and
// works for longer than its lease, which it renews meanwhile; a second task asks for the same key
// and is held until there is an answer; a third claims a key of its own behind that. Right is:
//
// - the first renews and completes while the second is held, so the work is done once, and the
//   second is told what came of it;
// - the third gets its lease when its reply can be sent: until then nobody has its key, and from
//   then on the whole lease is left.
//
// Replies wait in order, so the first task's renewal is answered behind the second task's reply:
// a heartbeat that waits for its answer would stop beating. This one does not.
//
// A round in which this process itself came too late for its lease says nothing and is repeated.
// ROUNDS=n sets how many there are for each library (1000), over CONNECTIONS=n (100).
"use strict";

const assert = require("node:assert/strict");
const { setImmediate: turn, setTimeout: sleep } = require("node:timers/promises");
const { check, counts } = require("./checks.js");

const [host, port, socket] = process.argv.slice(2);
const ROUNDS = Number(process.env.ROUNDS ?? 1000);
const CONNECTIONS = Math.min(Number(process.env.CONNECTIONS ?? 100), ROUNDS);
const LEASE_MS = 400;
const PART_MS = 270; // two of these are longer than the lease
const LATE_MS = 350; // between a grant and what rests on it
const DEADLINE_MS = 90_000;

// When what was just asked has left: a library may write only when the event loop comes round.
async function left() {
  await turn();
  await turn();
  return performance.now();
}

// One round; `call` asks on the connection that the tasks share, `elsewhere` on another.
async function round(call, elsewhere, key, waits) {
  const lease = ["LEASE", `${LEASE_MS}ms`];
  const [mine, behind] = [`${key}:mine`, `${key}:behind`];
  const executions = { [mine]: 0, [behind]: 0 };
  const work = () => sleep(PART_MS);
  const asked = performance.now();
  // Each lease begins after the first of two times, and what rests on it has left by the second.
  const spans = [];
  let completing;
  const [run, token] = await call("BEGIN", mine, ...lease);
  executions[mine] += 1;

  const second = (async () => {
    const told = await (waits ? call("ONCE.WAIT", mine, "TIMEOUT", "10s") : call("BEGIN", mine, ...lease, "WAIT", "10s"));
    if (told[0] === "DONE") return told;
    executions[mine] += 1; // it was told to do the work too, or that nobody does
    if (told[0] === "RUN") await call("COMPLETE", mine, told[1], "BODY", "of the second");
    return told;
  })();
  const third = (async () => {
    const [told, itsToken, leaseMs, attempt] = await call("BEGIN", behind, ...lease);
    executions[behind] += 1;
    await work();
    const itsCompleted = call("COMPLETE", behind, itsToken, "BODY", "of the third");
    spans.push([completing, await left()]);
    return [told, leaseMs, attempt, await itsCompleted];
  })();
  const first = (async () => {
    await work();
    const renewing = performance.now();
    const renewed = call("RENEW", mine, token, ...lease);
    spans.push([asked, await left()]);
    await work();
    const standing = await elsewhere("PEEK", mine, behind);
    completing = performance.now(); // the third's lease begins after this
    const completed = call("COMPLETE", mine, token, "BODY", `of ${token}`);
    spans.push([renewing, await left()]);
    return [run, standing, await renewed, await completed];
  })();

  const told = await Promise.all([first, second, third]);
  const got = { executions, first: told[0], second: told[1], third: told[2] };
  const want = {
    executions: { [mine]: 1, [behind]: 1 },
    first: ["RUN", "BN", ["OK", LEASE_MS], "OK"],
    second: ["DONE", 0, `of ${token}`],
    third: ["RUN", LEASE_MS, 1, "OK"],
  };
  const late = spans.some(([from, to]) => to - from > LATE_MS);
  return { late, got, want };
}

async function rounds(name, open) {
  const began = performance.now();
  const elsewhere = await open();
  let done = 0, started = 0, late = 0, ranTwice = 0, firstFault;
  const connections = await Promise.all(Array.from({ length: CONNECTIONS }, open));
  const oneConnection = async (connection) => {
    await sleep(Math.random() * 2 * PART_MS); // not all at once
    while (done < ROUNDS && performance.now() - began < DEADLINE_MS) {
      const number = started++;
      const outcome = await round(connection.call, elsewhere.call, `one:${process.pid}:${name}:${number}`.replaceAll(" ", "-"), number % 4 === 3);
      if (outcome.late) {
        late += 1;
        continue;
      }
      done += 1;
      ranTwice += Object.values(outcome.got.executions).some((times) => times !== 1);
      try {
        assert.deepEqual(outcome.got, outcome.want);
      } catch {
        firstFault ??= outcome;
      }
    }
    await connection.close();
  };
  await Promise.all(connections.map(oneConnection));
  await elsewhere.close();
  console.log(`      ${name}: ${done} rounds on ${CONNECTIONS} connections, ${late} repeated, ${Math.round(performance.now() - began)} ms`);
  check(`${name}: ${ROUNDS} rounds in time`, done >= ROUNDS, true);
  check(`${name}: rounds in which work was done twice`, ranTwice, 0);
  check(`${name}: what each task is told`, firstFault?.got, firstFault?.want);
}

const withIoredis = (Redis, address) => async () => {
  const redis = new Redis(address);
  redis.on("error", (error) => check(`no connection error (${error.message})`, false, true));
  return { call: (...words) => redis.call(...words), close: () => redis.quit() };
};

const withNodeRedis = (address) => async () => {
  const redis = require("redis").createClient({ socket: address });
  redis.on("error", (error) => check(`no connection error (${error.message})`, false, true));
  await redis.connect();
  return { call: (...words) => redis.sendCommand(words.map(String)), close: () => redis.close() };
};

async function main() {
  const tcp = { host, port: Number(port) };
  const version = (library) => require(`${library}/package.json`).version;
  const libraries = [
    [`ioredis ${version("ioredis")}`, withIoredis(require("ioredis"), tcp)],
    [`ioredis ${version("ioredis5")}`, withIoredis(require("ioredis5"), socket ? { path: socket } : tcp)],
    [`node-redis ${version("redis")}`, withNodeRedis(tcp)],
  ];
  const all = libraries.map(([name, open]) => rounds(name, open).catch((error) => check(`${name}: runs to its end (${error.message})`, false, true)));
  await Promise.all(all);
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
}

main();

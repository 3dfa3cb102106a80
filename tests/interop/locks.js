// Lock libraries of Node, unchanged: each takes a lock, contends for it, extends it, gives it back, and loses it.
// Usage: locks.js HOST PORT [UNIX_SOCKET]
// redlock (over several keys, too) and redis-semaphore's Mutex. Prints one line per check and a count at the end;
// the same checks hold against a real Redis.
"use strict";

const Redis = require("ioredis5");
const { Mutex } = require("redis-semaphore");
const { default: Redlock } = require("redlock");
const { check, counts } = require("./checks.js");

const [host, port] = process.argv.slice(2);
const LIFE_MS = 30_000;
const SHORT_MS = 200;
const DEADLINE_MS = 10_000;

const raised = (promise) => promise.then(() => "nothing", (error) => error.constructor.name);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const between = (low, high) => (got) => got >= low && got <= high;
const key = (word) => `locks:${process.pid}:${counts.section}:${word}`;

async function eventually(holds) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await holds())) {
    if (Date.now() > end) return false;
    await pause(10);
  }
  return true;
}

async function redlock(redis) {
  const once = new Redlock([redis], { retryCount: 0 });
  const patient = new Redlock([redis], { retryCount: 200, retryDelay: 20, retryJitter: 10 });
  for (const locks of [once, patient]) locks.on("error", () => {});
  const names = [key("a"), key("b"), key("c")];

  const mine = await once.acquire(names, LIFE_MS);
  check("acquire", await redis.exists(...names), 3);
  check("contend", await raised(once.acquire([key("c")], LIFE_MS)), "ExecutionError");
  check("contend for some of several", await raised(once.acquire([key("d"), key("a")], LIFE_MS)), "ExecutionError");
  check("takes none of them", await redis.exists(key("d")), 0);
  const longer = await mine.extend(2 * LIFE_MS);
  check("extend", await redis.pttl(key("b")), between(1.5 * LIFE_MS, 2 * LIFE_MS + 20));
  const others = { ...longer };
  const stranger = Object.assign(Object.create(Object.getPrototypeOf(longer)), others, { value: "not the owner's" });
  check("release by another", await raised(once.release(stranger)), "ExecutionError");
  check("extend by another", await raised(once.extend(stranger, LIFE_MS)), "ExecutionError");
  check("they are still locked", await redis.exists(...names), 3);
  const waiting = patient.acquire(names, LIFE_MS);
  await longer.release();
  check("release, and who waits has them", (await (await waiting).release()).attempts.length, (n) => n > 0);
  check("they are free", await redis.exists(...names), 0);
  await once.acquire(names, SHORT_MS);
  check("they lapse", await eventually(async () => (await redis.exists(...names)) === 0), true);
  await redis.script("FLUSH");
  await (await once.acquire(names, LIFE_MS)).release();
  check("scripts that were forgotten are sent again", await redis.exists(...names), 0);
  const used = await patient.using(names, 1_000, { automaticExtensionThreshold: 700 }, async (signal) => {
    await pause(1_200);
    return !signal.aborted && (await redis.exists(...names));
  });
  check("extended while it is used", used, 3);
}

async function mutex(redis) {
  const options = { acquireTimeout: 100, retryInterval: 10, lockTimeout: LIFE_MS, refreshInterval: 0 };
  const name = key("a");
  const [mine, yours] = [new Mutex(redis, name, options), new Mutex(redis, name, options)];
  const held = `mutex:${name}`;
  check("acquire", await mine.tryAcquire(), true);
  check("contend", await yours.tryAcquire(), false);
  check("contend, waiting", await raised(yours.acquire()), "TimeoutError");
  await yours.release();
  check("release by another", await redis.exists(held), 1);
  await mine.release();
  check("release", await redis.exists(held), 0);

  const refreshed = new Mutex(redis, name, { ...options, lockTimeout: 600, refreshInterval: 100, onLockLost: () => check("it is not lost", false, true) });
  await refreshed.acquire();
  await pause(900);
  check("extend", await redis.pttl(held), between(1, 620));
  await refreshed.release();
  await new Mutex(redis, name, { ...options, lockTimeout: SHORT_MS }).acquire();
  check("it lapses", await eventually(async () => (await redis.exists(held)) === 0), true);
}

async function main() {
  for (const [name, part] of [["redlock", redlock], ["redis-semaphore", mutex]]) {
    counts.section = name;
    const redis = new Redis({ host, port: Number(port) });
    let timer;
    const deadline = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("no end after 60 s")), 60_000); });
    await Promise.race([part(redis), deadline])
      .catch((error) => check(`runs to its end (${error.message})`, false, true))
      .finally(() => clearTimeout(timer));
    redis.disconnect();
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed`);
  process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
}

main();

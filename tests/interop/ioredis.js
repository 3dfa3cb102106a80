// Drives the server with ioredis, unchanged: the newest major, and the one before it.
// Usage: ioredis.js HOST PORT [UNIX_SOCKET]
// Prints one line per check and a count at the end. With INTEROP_PEER=redis the server is a real
// Redis, and checks that only onced can pass are skipped.
"use strict";

const { once } = require("node:events");
const { check, counts } = require("./checks.js");

const [host, port, socket] = process.argv.slice(2);
const againstRedis = process.env.INTEROP_PEER === "redis";

const refusal = (promise) => promise.then((got) => `no error but ${got}`, (error) => error.message);

async function everything(Redis, address) {
  const k = (word) => `js:${process.pid}:${counts.section}:${word}`.replaceAll(" ", "-");
  const connect = (options) => {
    const redis = new Redis({ ...address, ...options });
    redis.on("error", (error) => check(`no connection error (${error.message})`, false, true));
    return redis;
  };

  const redis = connect({ connectionName: "interop" });
  await once(redis, "ready");
  check("the ready check passes", redis.status, "ready");
  check("PING", await redis.ping(), "PONG");
  check("the connection has its name", await redis.client("GETNAME"), "interop");

  check("SET NX PX of a new key", await redis.set(k("a"), 1, "PX", 60000, "NX"), "OK");
  check("SET NX PX of the same key", await redis.set(k("a"), 2, "PX", 60000, "NX"), null);
  check("GET", await redis.get(k("a")), "1");
  check("GET of bytes", await redis.getBuffer(k("a")), Buffer.from("1"));
  check("MGET", await redis.mget(k("a"), k("none")), ["1", null]);
  check("PTTL", await redis.pttl(k("a")), (ms) => ms > 50000 && ms <= 60020);
  check("DEL", await redis.del(k("a"), k("none")), 1);
  check("an error reply", await refusal(redis.call("NOSUCH", "a")), (text) => text.includes("unknown command 'NOSUCH'"));

  const batch = redis.pipeline();
  for (let i = 0; i < 2000; i++) batch.set(k(`p${i % 1000}`), 1, "PX", 60000, "NX");
  const replies = await batch.exec();
  check("a pipeline: the first half is new", replies.slice(0, 1000).every(([error, reply]) => !error && reply === "OK"), true);
  check("a pipeline: the second half is repeats", replies.slice(1000).every(([error, reply]) => !error && reply === null), true);

  check("MULTI and EXEC", await redis.multi().set(k("m"), 1, "PX", 60000, "NX").set(k("m"), 1, "PX", 60000, "NX").get(k("m")).exec(), [[null, "OK"], [null, null], [null, "1"]]);
  await redis.multi({ pipeline: false });
  check("MULTI without a pipeline queues", await redis.set(k("q"), 1, "PX", 60000, "NX"), "QUEUED");
  check("and EXEC answers", await redis.exec(), [[null, "OK"]]);

  const scanned = new Set();
  for await (const keys of redis.scanStream({ match: k("p*"), count: 100 })) keys.forEach((key) => scanned.add(key));
  check("scanStream finds every key", scanned.size, 1000);

  if (againstRedis) {
    counts.skipped += 1;
    console.log(`skip  ${counts.section}: native verbs and BF.*`);
  } else {
    check("SEEN", await redis.call("SEEN", k("seen"), "60s"), "NEW");
    check("SEEN again", await redis.call("SEEN", k("seen"), "60s"), "DUP");
    check("MSEEN", await redis.call("MSEEN", "60s", k("x"), k("y"), k("y")), "NND");
    const bloom = k("bloom").replaceAll(":", ".");
    check("BF.MADD", (await redis.call("BF.MADD", bloom, "a", "b", "a")).map(Number), [1, 1, 0]);
  }
  if (!againstRedis) {
    const [word, token, , attempt] = await redis.call("BEGIN", k("job"), "LEASE", "20s");
    check("BEGIN", [word, attempt], ["RUN", 1]);
    check("a token is a safe integer", Number.isSafeInteger(token) && token > 0, true);
    check("COMPLETE", await redis.call("COMPLETE", k("job"), token, "BODY", "result"), "OK");
    check("BEGIN of a completed record", await redis.call("BEGIN", k("job")), ["DONE", 0, "result"]);
  }

  const automatic = connect({ enableAutoPipelining: true });
  const first = await Promise.all(Array.from({ length: 1000 }, (_, i) => automatic.set(k(`auto${i}`), 1, "PX", 60000, "NX")));
  check("automatic pipelining: all new", first.every((reply) => reply === "OK"), true);
  const again = await Promise.all(Array.from({ length: 1000 }, (_, i) => automatic.set(k(`auto${i}`), 1, "PX", 60000, "NX")));
  check("automatic pipelining: all repeats", again.every((reply) => reply === null), true);
  check("automatic pipelining: QUIT", await automatic.quit(), "OK");

  // A command with broken framing makes the server hang up, after it said why.
  const broken = new Redis.Command("ping");
  broken.toWritable = () => "*1\r\n$-5\r\n";
  const back = once(redis, "close").then(() => once(redis, "ready"));
  check("broken framing is answered", await refusal(redis.sendCommand(broken)), (text) => text.includes("Protocol error"));
  await back;
  check("the server hangs up, ioredis reconnects", await redis.get(k("m")), "1");
  check("with its name", await redis.client("GETNAME"), "interop");

  const other = connect({ db: 3 });
  check("another database", await other.get(k("m")), null);
  check("QUIT there", await other.quit(), "OK");

  const ended = once(redis, "end");
  check("QUIT", await redis.quit(), "OK");
  await ended;
  check("and the connection ends", redis.status, "end");
}

async function main() {
  const over = [["", { host, port: Number(port) }]];
  if (socket) over.push([" over a Unix socket", { path: socket }]);
  for (const name of ["ioredis", "ioredis5"]) {
    for (const [suffix, address] of over) {
      counts.section = `ioredis ${require(`${name}/package.json`).version}${suffix}`;
      let timer;
      const deadline = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error("no end after 60 s")), 60000); });
      await Promise.race([everything(require(name), address), deadline])
        .catch((error) => check(`runs to its end (${error.message})`, false, true))
        .finally(() => clearTimeout(timer));
    }
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exit(counts.failed > 0 || counts.passed === 0 ? 1 : 0);
}

main();

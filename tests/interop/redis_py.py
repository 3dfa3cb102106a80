"""Drives the server with redis-py, unchanged, over RESP2, RESP3 and a Unix socket.

Usage: redis_py.py HOST PORT [UNIX_SOCKET]

Prints one line per check and a count at the end. With INTEROP_PEER=redis the server is a real
Redis, and checks that only onced can pass are skipped.
"""

import asyncio
import logging
import os
import sys
import threading
import time
import warnings

import redis
import redis.asyncio

AGAINST_REDIS = os.environ.get("INTEROP_PEER") == "redis"
LONGEST_TTL_S = 365 * 86_400
counts = {"passed": 0, "failed": 0, "skipped": 0}
section = ""


def check(name, got, want):
    """One check: `got` equals `want`, or `want(got)` holds when it is a function."""
    holds = want(got) if callable(want) else got == want
    counts["passed" if holds else "failed"] += 1
    line = f"{section}: {name}"
    print(f"ok    {line}" if holds else f"FAIL  {line}: got {got!r}, want {want!r}")


def refused(name, words, call):
    """One check: `call()` raises Redis's error reply, and it contains `words`."""
    try:
        got = call()
    except redis.exceptions.ResponseError as error:
        # redis-py turns some codes into classes and drops them from the text.
        text = f"{type(error).__name__} {error}"
        check(name, text, lambda text: words.lower() in text.lower())
    else:
        check(name, got, f"an error with '{words}'")


def between(low, high):
    return lambda got: low <= got <= high


def first_sight(r, k):
    check("SET NX PX of a new key", r.set(k("a"), 1, nx=True, px=60_000), True)
    check("SET NX PX of the same key", r.set(k("a"), 2, nx=True, px=60_000), None)
    check("GET", r.get(k("a")), b"1")
    check("GET of a key that is not there", r.get(k("none")), None)
    check("MGET", r.mget(k("a"), k("none"), k("a")), [b"1", None, b"1"])
    check("EXISTS", r.exists(k("a"), k("a"), k("none")), 2)
    check("DEL", r.delete(k("a"), k("none")), 1)
    check("new again", r.set(k("a"), 1, nx=True, ex=60), True)
    check("SET NX GET of a standing key", r.set(k("a"), 2, nx=True, get=True), b"1")
    check("binary keys and values", r.set(b"\x00\r\n\xff" + k("b").encode(), b"\x00\r\n", px=60_000), True)
    check("come back", r.get(b"\x00\r\n\xff" + k("b").encode()), b"\x00\r\n")


def expiry(r, k):
    """A key is a repeat until 200 ms have passed, and new by 250 ms, however slow this machine."""
    sent = time.monotonic()
    check("a window opens", r.set(k("px"), 1, nx=True, px=200), True)
    answered = time.monotonic()
    last_dup_sent = answered
    while True:
        asked = time.monotonic()
        if r.set(k("px"), 1, nx=True, px=200):
            break
        last_dup_sent = asked
        if asked - sent > 5:
            break
        time.sleep(0.001)
    check("never early", time.monotonic() - sent, lambda s: s >= 0.200)
    check("new by 250 ms", last_dup_sent - answered, lambda s: s < 0.250)
    r.set(k("gone"), 1, px=30)
    time.sleep(0.08)
    check("an expired key reads as null", r.get(k("gone")), None)
    check("and is not there", r.exists(k("gone")), 0)
    check("and has no TTL", (r.ttl(k("gone")), r.pttl(k("gone"))), (-2, -2))


def deadlines(r, k):
    r.set(k("t"), 1, px=60_000)
    check("TTL", r.ttl(k("t")), between(59, 60))
    check("PTTL", r.pttl(k("t")), between(50_000, 60_020))
    check("EXPIRE NX on a key with a deadline", r.expire(k("t"), 100, nx=True), False)
    check("EXPIRE XX", r.expire(k("t"), 100, xx=True), True)
    check("EXPIRE GT, later", r.expire(k("t"), 200, gt=True), True)
    check("EXPIRE GT, sooner", r.expire(k("t"), 100, gt=True), False)
    check("EXPIRE LT, later", r.expire(k("t"), 300, lt=True), False)
    check("EXPIRE LT, sooner", r.pexpire(k("t"), 150_000, lt=True), True)
    check("the deadline that stands", r.ttl(k("t")), between(149, 150))
    check("EXPIRE of a key that is not there", r.expire(k("none"), 100), False)
    now_s = int(time.time())
    check("EXPIREAT", r.expireat(k("t"), now_s + 1_000), True)
    check("EXPIRETIME", r.expiretime(k("t")), between(now_s + 1_000, now_s + 1_001))
    check("PEXPIREAT", r.pexpireat(k("t"), (now_s + 2_000) * 1_000), True)
    check("PEXPIRETIME", r.pexpiretime(k("t")), between((now_s + 2_000) * 1_000, (now_s + 2_000) * 1_000 + 20))
    check("SET EXAT", r.set(k("at"), 1, exat=now_s + 100), True)
    check("its TTL", r.ttl(k("at")), between(97, 101))
    check("SET KEEPTTL", r.set(k("at"), 2, keepttl=True), True)
    check("keeps it", r.ttl(k("at")), between(97, 101))
    check("PERSIST", r.persist(k("at")), True)
    check("an EXPIRE in the past deletes", r.expire(k("at"), -1), True)
    check("it is gone", r.exists(k("at")), 0)


def values(r, k):
    check("SET", r.set(k("v"), "one", px=60_000), True)
    check("SET GET", r.set(k("v"), "two", get=True, px=60_000), b"one")
    check("SET XX", r.set(k("v"), "three", xx=True, px=60_000), True)
    check("SET XX of a key that is not there", r.set(k("none"), 1, xx=True, px=60_000), None)
    check("GETEX", r.getex(k("v"), px=90_000), b"three")
    check("moved the deadline", r.ttl(k("v")), between(89, 90))
    check("STRLEN", r.strlen(k("v")), 5)
    check("TYPE", r.type(k("v")), b"string")
    check("TYPE of a key that is not there", r.type(k("none")), b"none")
    check("TOUCH", r.touch(k("v"), k("none")), 1)
    check("GETDEL", r.getdel(k("v")), b"three")
    check("GETDEL again", r.getdel(k("v")), None)
    check("SETNX", r.setnx(k("w"), "one"), True)
    check("SETNX again", r.setnx(k("w"), "two"), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        check("GETSET", r.getset(k("w"), "three"), b"one")
        check("SETEX", r.setex(k("x"), 60, "one"), True)
        check("PSETEX", r.psetex(k("y"), 60_000, "one"), True)
    check("their TTLs", (r.ttl(k("x")), r.ttl(k("y"))), lambda t: all(59 <= ttl <= 60 for ttl in t))
    check("UNLINK", r.unlink(k("w"), k("x"), k("none")), 2)
    refused("an expiry of nothing", "invalid expire time in 'set' command", lambda: r.set(k("x"), 1, px=0))
    refused("options that exclude each other", "syntax error", lambda: r.execute_command("SET", k("x"), 1, "NX", "XX"))
    refused("wrong arity", "wrong number of arguments for 'get' command", lambda: r.execute_command("GET"))
    refused("unknown command", "unknown command 'NOSUCH'", lambda: r.execute_command("NOSUCH", "a"))


def numbers(r, k):
    check("INCR", [r.incr(k("n")), r.incr(k("n"), 41), r.decr(k("n"), 2)], [1, 42, 40])
    check("its value", r.get(k("n")), b"40")
    check("MSETNX", [r.msetnx({k("m"): 1, k("o"): b"two"}), r.msetnx({k("p"): 1, k("m"): 2})], [True, False])
    check("all or nothing", r.mget(k("m"), k("o"), k("p")), [b"1", b"two", None])
    check("MSET", r.mset({k("m"): 3, k("p"): 4}), True)
    check("all of it", r.mget(k("m"), k("p")), [b"3", b"4"])
    r.set(k("text"), "text", px=60_000)
    refused("INCR of a text", "not an integer", lambda: r.incr(k("text")))


def sets(r, k):
    """The calls of scrapy-redis's RFPDupeFilter (seen: SADD answers 0), and of what gives a set an end."""
    name = k("dupefilter")

    def seen(fingerprint):
        return r.sadd(name, fingerprint) == 0

    check("seen", [seen("a" * 40), seen("b" * 40), seen("a" * 40)], [False, False, True])
    check("SISMEMBER", [r.sismember(name, "b" * 40), r.sismember(name, "c" * 40)], [1, 0])
    check("SMISMEMBER", r.smismember(name, "b" * 40, "c" * 40), [1, 0])
    check("SADD of many", r.sadd(name, "a" * 40, "c", b"\x00\r\n"), 2)
    check("SCARD", r.scard(name), 4)
    check("SREM", r.srem(name, "a" * 40, "b" * 40, "none"), 2)
    check("SMEMBERS", r.smembers(name), {b"c", b"\x00\r\n"})
    check("SSCAN", set(r.sscan_iter(name)), {b"c", b"\x00\r\n"})
    check("TYPE", r.type(name), b"set")
    check("TTL without an end", r.ttl(name), -1)
    check("EXPIRE", [r.expire(name, 100, nx=True), r.expire(name, 200, nx=True)], [True, False])
    check("TTL", r.ttl(name), between(99, 100))
    check("PERSIST", [r.persist(name), r.ttl(name)], [True, -1])
    check("DEL", [r.delete(name), r.exists(name), r.scard(name)], [1, 0, 0])
    check("new again", seen("a" * 40), False)
    check("UNLINK", r.unlink(name), 1)


def pipelines(r, k):
    for transaction in (True, False):
        style = "MULTI" if transaction else "plain"
        for want, words in ((True, "all new"), (None, "all repeats")):
            with r.pipeline(transaction=transaction) as batch:
                for i in range(5_000):
                    batch.set(k(f"{style}{i}"), 1, nx=True, px=60_000)
                check(f"{style} pipeline of 5,000: {words}", batch.execute(), lambda got, want=want: got == [want] * 5_000)
    with r.pipeline() as batch:
        batch.set(k("mixed"), 1, nx=True, px=60_000).get(k("mixed")).exists(k("mixed"), k("none")).delete(k("mixed"))
        check("a mixed batch", batch.execute(), [True, b"1", 1, 1])
    with r.pipeline() as batch:
        batch.set(k("aborted"), 1, px=60_000).execute_command("NOSUCH")
        refused("a batch with an unknown command", "unknown command", batch.execute)
    check("runs none of it", r.exists(k("aborted")), 0)
    with r.pipeline(transaction=False) as batch:
        batch.set(k("goes on"), 1, px=60_000).execute_command("NOSUCH").get(k("goes on"))
        got = batch.execute(raise_on_error=False)
    check("without MULTI the rest runs", (got[0], type(got[1]), got[2]), (True, redis.exceptions.ResponseError, b"1"))
    check("the connection is sound afterwards", r.get(k("goes on")), b"1")


def one_winner(r, k):
    """Eight threads ask for the same keys: each key has one winner."""
    wins = []

    def ask():
        wins.append(sum(bool(r.set(k(f"race{i}"), 1, nx=True, px=60_000)) for i in range(300)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check("every key has one winner", (len(wins), sum(wins)), (8, 300))


def databases(r, k, connect):
    r.set(k("db"), 1, px=60_000)
    with connect(db=3) as other:
        other.flushdb()
        check("db=3 does not see it", other.get(k("db")), None)
        check("it is new there", other.set(k("db"), 3, nx=True, px=60_000), True)
        with other.pipeline() as batch:
            for i in range(500):
                batch.set(f"scan:{i}", 1, px=60_000)
            batch.execute()
        check("DBSIZE", other.dbsize(), 501)
        check("SCAN finds every key", sorted(other.scan_iter(match="scan:*", count=50)), sorted(f"scan:{i}".encode() for i in range(500)))
        check("KEYS", len(other.keys("scan:49?")), 10)
        check("FLUSHDB", other.flushdb(), True)
        check("empties it", other.dbsize(), 0)
    check("and no other", r.get(k("db")), b"1")


def session(r, connect):
    check("PING", r.ping(), True)
    check("ECHO", r.echo("a b"), b"a b")
    check("TIME", abs(r.time()[0] - time.time()), between(0, 5))
    check("WAIT", r.wait(0, 10), 0)
    with connect(client_name="interop", single_connection_client=True) as named:
        check("CLIENT GETNAME", named.client_getname(), lambda name: name in ("interop", b"interop"))
        check("CLIENT SETNAME", named.client_setname("renamed"), True)
        check("CLIENT ID", named.client_id(), lambda i: isinstance(i, int) and i > 0)
        me = named.client_info()
        check("CLIENT INFO knows the name", me.get("name"), "renamed")
        check("CLIENT INFO knows the id", int(me.get("id", -1)), named.client_id())
        check("CLIENT LIST has this connection", [c["name"] for c in r.client_list()], lambda names: "renamed" in names)
    info = r.info()
    check("INFO names a version", info.get("redis_version"), lambda v: isinstance(v, str) and v[0].isdigit())
    check("INFO has its sections", set(info), lambda names: {"connected_clients", "used_memory", "uptime_in_seconds"} <= names)
    check("INFO SERVER", "redis_version" in r.info("server"), True)
    check("CONFIG GET", r.config_get("maxmemory"), lambda got: isinstance(got, dict))
    check("CONFIG GET of nothing known", r.config_get("nosuch*"), {})
    check("COMMAND COUNT", r.command_count(), lambda n: n > 0)
    commands = r.command()
    check("COMMAND, read to the tenth field", commands["get"]["step_count"], 1)
    check("CLIENT LIST of a type", len(r.client_list(_type="normal")), lambda n: n > 0)
    check("CLIENT KILL of nobody", r.client_kill_filter(_id=2**40), 0)
    check("ROLE", r.role(), lambda got: list(got)[0] in ("master", b"master"))
    check("SLOWLOG", (r.slowlog_get(), r.slowlog_len(), r.latency_latest(), r.module_list()), lambda got: got[1] == 0 or AGAINST_REDIS)
    check("INFO COMMANDSTATS", r.info("commandstats")["cmdstat_get"], lambda got: {"calls", "usec", "usec_per_call", "rejected_calls", "failed_calls"} <= set(got))
    check("CONFIG GET databases", int(r.config_get("databases")["databases"]), between(16, 1024))
    with connect(decode_responses=True) as text:
        check("decoded replies", (text.echo("ä"), text.ping()), ("ä", True))
    with connect(health_check_interval=1) as checked:
        checked.ping()
        time.sleep(1.1)
        check("the pool's health check", checked.echo("alive"), b"alive")


def only_ours(r, k, protocol):
    refused("WATCH", "WATCH", lambda: r.pipeline().watch(k("w")))

    check("SEEN", [r.execute_command("SEEN", k("seen"), "60s") for _ in range(2)], [b"NEW", b"DUP"])
    check("ONCE.SEEN", r.execute_command("ONCE.SEEN", k("seen"), "60s"), b"DUP")
    check("SET NX meets SEEN", r.set(k("seen"), 1, nx=True, px=60_000), None)
    check("a marker's value", r.get(k("seen")), b"1")
    check("MSEEN", r.execute_command("MSEEN", "60s", k("a1"), k("b1"), k("b1")), b"NND")
    check("PEEK", r.execute_command("PEEK", k("a1"), k("none")), b"DN")
    check("ONCE.TTL", r.execute_command("ONCE.TTL", k("a1")), between(50_000, 60_020))
    check("ONCE.TTL of a key that is not there", r.execute_command("ONCE.TTL", k("none")), None)
    refused("a bare number as duration", "unit", lambda: r.execute_command("SEEN", k("bare"), "60"))

    rows = r.execute_command("INSPECT", k("seen"))
    if protocol == 2:
        rows = dict(zip(rows[::2], rows[1::2]))
    check("INSPECT is a map", b"state" in rows, True)

    check("without an expiry the default TTL holds", (r.set(k("plain"), 1), r.ttl(k("plain"))), lambda got: got[0] is True and 3_599 <= got[1] <= 3_600)
    check("PERSIST re-arms the longest TTL", (r.persist(k("plain")), r.ttl(k("plain"))), lambda got: got[0] is True and LONGEST_TTL_S - 1 <= got[1] <= LONGEST_TTL_S)
    check("a longer expiry is clamped to it", (r.set(k("long"), 1, ex=10 * LONGEST_TTL_S), r.ttl(k("long"))), lambda got: LONGEST_TTL_S - 1 <= got[1] <= LONGEST_TTL_S)

    r.set(k("lock"), "mine", nx=True, px=60_000)
    check("SET IFEQ of another owner", r.execute_command("SET", k("lock"), "mine", "IFEQ", "theirs", "PX", 60_000), None)
    check("SET IFEQ of the owner", r.execute_command("SET", k("lock"), "mine", "IFEQ", "mine", "PX", 90_000), lambda got: got in (True, b"OK"))
    check("moved the deadline", r.ttl(k("lock")), between(89, 90))
    check("DELEX IFEQ of another owner", r.execute_command("DELEX", k("lock"), "IFEQ", "theirs"), 0)
    check("DELEX IFEQ of the owner", r.execute_command("DELEX", k("lock"), "IFEQ", "mine"), 1)
    r.set(k("lock"), "mine", nx=True, px=60_000)
    check("DELIFEQ of another owner", r.execute_command("DELIFEQ", k("lock"), "theirs"), 0)
    check("DELIFEQ of the owner", r.execute_command("DELIFEQ", k("lock"), "mine"), 1)
    check("released", r.exists(k("lock")), 0)


def records(r, k):
    run = r.execute_command("BEGIN", k("job"), "LEASE", "20s")
    check("BEGIN", (run[0], run[1] > 0, run[2:]), (b"RUN", True, [20_000, 1]))
    check("BEGIN again", r.execute_command("BEGIN", k("job"))[0], b"BUSY")
    check("a record in progress reads as null", r.get(k("job")), None)
    refused("SET on a record in progress", "WRONGTYPE", lambda: r.set(k("job"), 1, px=60_000))
    refused("GETDEL on a record in progress", "WRONGTYPE", lambda: r.getdel(k("job")))
    check("COMPLETE", r.execute_command("COMPLETE", k("job"), run[1], "CODE", 7, "BODY", b"result\r\n"), b"OK")
    check("BEGIN of a completed record", r.execute_command("BEGIN", k("job")), [b"DONE", 7, b"result\r\n"])
    check("ONCE.WAIT", r.execute_command("ONCE.WAIT", k("job"), "TIMEOUT", "1s"), [b"DONE", 7, b"result\r\n"])
    check("its value is its body", r.get(k("job")), b"result\r\n")


def bloom(r, k):
    filter_name = k("bloom")
    bf = r.bf()
    check("BF.RESERVE", bf.reserve(filter_name, 0.01, 1_000), True)
    check("BF.ADD", [bf.add(filter_name, "a"), bf.add(filter_name, "a")], [1, 0])
    check("BF.MADD", bf.madd(filter_name, "a", "b", "b"), [0, 1, 0])
    check("BF.EXISTS", [bf.exists(filter_name, "a"), bf.exists(filter_name, "z")], [1, 0])
    check("BF.MEXISTS", bf.mexists(filter_name, "b", "z"), [1, 0])
    check("BF.INSERT", bf.insert(filter_name, ["c", "a"], capacity=1_000, error=0.01), [1, 0])
    check("BF.CARD", bf.card(filter_name), 3)
    info = bf.info(filter_name)  # redis-py makes an object of a RESP2 reply and leaves a map as it is
    inserted = info[b"Number of items inserted"] if isinstance(info, dict) else info.insertedNum
    check("BF.INFO", inserted, 3)


def asynchronous(k, **address):
    async def ask():
        async with redis.asyncio.Redis(**address) as r:
            first = await asyncio.gather(*(r.set(k(f"async{i}"), 1, nx=True, px=60_000) for i in range(50)))
            again = await asyncio.gather(*(r.set(k(f"async{i}"), 1, nx=True, px=60_000) for i in range(50)))
            return first, again

    check("asyncio", asyncio.run(ask()), ([True] * 50, [None] * 50))


def everything(name, protocol, **address):
    global section
    section = name

    def connect(**options):
        return redis.Redis(protocol=protocol, **address, **options)

    def k(word):
        """This run's key: a second run against the same server passes too."""
        return f"py:{os.getpid()}:{name}:{word}".replace(" ", "-")

    with connect() as r:
        for part in (first_sight, expiry, deadlines, values, numbers, sets, pipelines, one_winner):
            part(r, k)
        databases(r, k, connect)
        session(r, connect)
        if AGAINST_REDIS:
            counts["skipped"] += 1
            print(f"skip  {section}: native verbs, BF.*, IFEQ, the default and the longest TTL")
        else:
            only_ours(r, k, protocol)
            bloom(r, k)
            records(r, k)
    asynchronous(k, protocol=protocol, **address)


def main():
    global section
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore", UserWarning)
    host, port, *socket = sys.argv[1:]
    runs = [(f"RESP{protocol}", protocol, {"host": host, "port": int(port)}) for protocol in (2, 3)]
    if socket and socket[0]:
        runs.append(("unix socket", 3, {"unix_socket_path": socket[0]}))
    for name, protocol, address in runs:
        try:
            everything(name, protocol, **address)
        except Exception as error:  # the other runs are still worth seeing
            check(f"runs to its end ({type(error).__name__}: {error})", False, True)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    sys.exit(counts["failed"] > 0 or counts["passed"] == 0)


main()

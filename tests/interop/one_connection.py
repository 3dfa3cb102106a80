"""Holders of idempotency records on one connection, with redis-py, unchanged.

Usage: one_connection.py HOST PORT [UNIX_SOCKET]

redis-py has two ways to have more than one request on a connection. A pipeline sends all of its
requests before it reads a reply. Its asyncio connection lets any task send (`send_command`) while
another one reads (`read_response`), which is how frameworks share one; `SharedConnection` does
that here and adds nothing but the order of replies. The client object itself is not such a way:
with `single_connection_client` it lets no task send before the one ahead has its reply (a lock
around both), so there a held `BEGIN` keeps a `RENEW` from being sent at all, whatever the server.

What is right, and what a round is, is written in one_connection.js. ROUNDS=n sets how many there
are (1000), over CONNECTIONS=n (100).
"""

import asyncio
import collections
import os
import random
import sys
import time

import redis
import redis.asyncio

ROUNDS = int(os.environ.get("ROUNDS", "1000"))
CONNECTIONS = min(int(os.environ.get("CONNECTIONS", "100")), ROUNDS)
LEASE_MS, PART_MS, LATE_MS = 400, 270, 350  # two parts are longer than the lease
DEADLINE_S = 90
counts = {"passed": 0, "failed": 0}


def check(name, got, want):
    counts["passed" if got == want else "failed"] += 1
    print(f"ok    {name}" if got == want else f"FAIL  {name}: got {got!r}, want {want!r}")


class SharedConnection:
    """redis-py's connection, used by many tasks: replies come in the order of requests."""

    def __init__(self, **address):
        kind = redis.asyncio.UnixDomainSocketConnection if "path" in address else redis.asyncio.Connection
        self.connection = kind(socket_timeout=None, **address)
        self.waiting = collections.deque()
        self.sent = asyncio.Event()

    async def __aenter__(self):
        await self.connection.connect()
        self.reader = asyncio.create_task(self.read())
        return self

    async def __aexit__(self, *_):
        self.reader.cancel()
        await self.connection.disconnect()

    async def read(self):
        try:
            while True:
                await self.sent.wait()
                reply = await self.connection.read_response()
                self.waiting.popleft().set_result(reply)
                if not self.waiting:
                    self.sent.clear()
        except Exception as error:  # whoever waits is told, or would wait for ever
            for future in self.waiting:
                future.set_exception(error)

    def send(self, *words):
        """Sends now; what is returned is awaited for the reply."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.sent.set()
        # A request is far smaller than the socket's buffer: nothing in here suspends, so requests
        # leave in the order of their futures.
        sending = self.connection.send_command(*words)
        try:
            sending.send(None)
        except StopIteration:
            return future
        raise RuntimeError("redis-py did not send at once")


async def one_round(here, elsewhere, key, waits):
    lease = ("LEASE", f"{LEASE_MS}ms")
    mine, behind = f"{key}:mine", f"{key}:behind"
    executions = {"mine": 0, "behind": 0}
    at = {}

    async def work(name):
        await asyncio.sleep(PART_MS / 1000)
        at[name] = time.monotonic()

    asked = time.monotonic()
    run, token, *_ = await here.send("BEGIN", mine, *lease)
    executions["mine"] += 1

    async def second():
        request = ("ONCE.WAIT", mine, "TIMEOUT", "10s") if waits else ("BEGIN", mine, *lease, "WAIT", "10s")
        told = await here.send(*request)
        if not isinstance(told, list) or told[0] != b"DONE":
            executions["mine"] += 1  # it was told to do the work too, or that nobody does
        if isinstance(told, list) and told[0] == b"RUN":
            await here.send("COMPLETE", mine, told[1], "BODY", "of the second")
        return told

    async def third():
        told, its_token, lease_ms, attempt = await here.send("BEGIN", behind, *lease)
        executions["behind"] += 1
        await work("third ended")
        return told, lease_ms, attempt, await here.send("COMPLETE", behind, its_token, "BODY", "of the third")

    async def first():
        await work("renewed")
        renewed = here.send("RENEW", mine, token, *lease)
        await work("worked")
        standing = await elsewhere.send("PEEK", mine, behind)
        at["completed"] = time.monotonic()  # the third's lease begins after this
        completed = here.send("COMPLETE", mine, token, "BODY", f"of {token}")
        return run, standing, await renewed, await completed

    told = await asyncio.gather(first(), second(), third())
    want = [
        (b"RUN", b"BN", [b"OK", LEASE_MS], b"OK"),
        [b"DONE", 0, f"of {token}".encode()],
        (b"RUN", LEASE_MS, 1, b"OK"),
    ]
    longest = max(at["renewed"] - asked, at["completed"] - at["renewed"], at["third ended"] - at["completed"])
    return longest * 1000 > LATE_MS, executions, told, want


async def shared(name, **address):
    began = time.monotonic()
    tally = collections.Counter()
    faults = []

    async def one_connection(elsewhere):
        async with SharedConnection(**address) as here:
            await asyncio.sleep(1 + 2 * random.random() * PART_MS / 1000)  # all are connected, and not all ask at once
            while tally["done"] < ROUNDS and time.monotonic() - began < DEADLINE_S:
                number = tally["started"]
                tally["started"] += 1
                key = f"one:{os.getpid()}:{name}:{number}".replace(" ", "-")
                late, executions, told, want = await one_round(here, elsewhere, key, number % 4 == 3)
                if late:
                    tally["late"] += 1
                    continue
                tally["done"] += 1
                tally["twice"] += any(times != 1 for times in executions.values())
                if told != want:
                    faults.append((told, want))

    async with SharedConnection(**address) as elsewhere:
        await asyncio.gather(*(one_connection(elsewhere) for _ in range(CONNECTIONS)))
    print(f"      {name}: {tally['done']} rounds on {CONNECTIONS} connections, {tally['late']} repeated, {time.monotonic() - began:.1f} s")
    check(f"{name}: {ROUNDS} rounds in time", tally["done"] >= ROUNDS, True)
    check(f"{name}: rounds in which work was done twice", tally["twice"], 0)
    check(f"{name}: what each task is told", *(faults[0] if faults else ("all right", "all right")))


def pipelined(name, **address):
    """A pipeline that waits for what it settles itself, and begins something behind that."""
    with redis.Redis(**address) as r:
        key = f"pipe:{os.getpid()}:{name}".replace(" ", "-")
        _, token, *_ = r.execute_command("BEGIN", key, "LEASE", "3s")
        pipe = r.pipeline(transaction=False)
        pipe.execute_command("BEGIN", key, "WAIT", "10s")
        pipe.execute_command("BEGIN", f"{key}:behind", "LEASE", "3s")
        pipe.execute_command("RENEW", key, token, "LEASE", "3s")
        pipe.execute_command("COMPLETE", key, token, "BODY", "result")
        pipe.execute_command("PEEK", key, f"{key}:behind")
        began = time.monotonic()
        done, behind, renewed, completed, standing = pipe.execute()
        check(f"{name}: a pipeline is not held by what it settles", time.monotonic() - began < 2, True)
        check(f"{name}: its held BEGIN", done, [b"DONE", 0, b"result"])
        check(f"{name}: its RENEW and COMPLETE", (renewed, completed), ([b"OK", 3000], b"OK"))
        check(f"{name}: the BEGIN behind it", (behind[0], behind[2:]), (b"RUN", [3000, 1]))
        # PEEK may grant no lease and goes ahead of that BEGIN or follows it.
        check(f"{name}: what the pipeline's end sees", standing in (b"CN", b"CB"), True)


def main():
    host, port, *socket = sys.argv[1:]
    runs = [(f"redis-py {redis.__version__}, RESP{protocol}", protocol, {"host": host, "port": int(port)}) for protocol in (2, 3)]
    for name, protocol, address in runs:
        pipelined(name, protocol=protocol, **address)
    if socket and socket[0]:
        address = {"path": socket[0]}
    name = f"redis-py {redis.__version__}"
    try:
        asyncio.run(shared(name, protocol=3, **address))
    except Exception as error:
        check(f"{name}: runs to its end ({type(error).__name__}: {error})", False, True)
    print("{passed} passed, {failed} failed".format(**counts))
    sys.exit(counts["failed"] > 0 or counts["passed"] == 0)


main()

"""Lock libraries of Python, unchanged: each takes a lock, contends for it, extends it, gives it back, and loses it.

Usage: locks.py HOST PORT [UNIX_SOCKET]

redis-py's Lock (sync and asyncio), redlock-py, pottery, aiocache and cashews. All of them release by a script.
Prints one line per check and a count at the end; the same checks hold against a real Redis.
"""

import asyncio
import logging
import os
import sys
import time
import warnings

import aiocache
import aiocache.lock
import cashews
import pottery
import redis
import redis.asyncio
import redlock

LIFE_S = 30
SHORT_S = 0.2
DEADLINE_S = 10
host, port = sys.argv[1], int(sys.argv[2])
counts = {"passed": 0, "failed": 0}
section = ""


def check(name, got, want):
    """One check: `got` equals `want`, or `want(got)` holds when it is a function."""
    holds = want(got) if callable(want) else got == want
    counts["passed" if holds else "failed"] += 1
    line = f"{section}: {name}"
    print(f"ok    {line}" if holds else f"FAIL  {line}: got {got!r}, want {want!r}")


def raised(call):
    """The name of what a call raises."""
    try:
        return call()
    except Exception as error:
        return type(error).__name__


async def raised_by(awaitable):
    try:
        return await awaitable
    except Exception as error:
        return type(error).__name__


def eventually(holds):
    end = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def key(word):
    """This run's key: a second run against the same server passes too."""
    return f"locks:{os.getpid()}:{section}:{word}".replace(" ", "-")


def between(low, high):
    return lambda got: isinstance(got, int) and low <= got <= high


def redis_py(r):
    mine, yours = (r.lock(key("a"), timeout=LIFE_S, thread_local=False) for _ in range(2))
    check("acquire", mine.acquire(blocking=False), True)
    check("contend", yours.acquire(blocking=False), False)
    began = time.monotonic()
    check("contend, waiting", yours.acquire(blocking_timeout=0.3, sleep=0.05), False)
    check("waits for so long", time.monotonic() - began, lambda s: s < DEADLINE_S)
    check("extend", mine.extend(LIFE_S), True)
    check("by that much", r.pttl(key("a")), between(LIFE_S * 1_500, LIFE_S * 2_000 + 20))
    check("extend to a new end", mine.extend(10, replace_ttl=True), True)
    check("that is", r.pttl(key("a")), between(1, 10_020))
    check("reacquire", mine.reacquire(), True)
    check("to its whole life", r.pttl(key("a")), between(10_021, LIFE_S * 1_000 + 20))
    for name, call in (("release", yours.release), ("extend", lambda: yours.extend(1)), ("reacquire", yours.reacquire)):
        yours.local.token = b"not the owner's"
        check(f"{name} by another", raised(call), "LockNotOwnedError")
    check("it is still locked", (mine.owned(), mine.locked()), (True, True))
    check("release", raised(mine.release), None)
    check("it is free", r.exists(key("a")), 0)
    with r.lock(key("a"), timeout=SHORT_S, thread_local=False, raise_on_release_error=False):
        check("it lapses", eventually(lambda: not r.exists(key("a"))), True)
    r.script_flush()
    with r.lock(key("a"), timeout=LIFE_S):
        pass
    check("scripts that were forgotten are sent again", r.exists(key("a")), 0)
    pipe = r.pipeline()
    release = r.register_script(redis.lock.Lock.LUA_RELEASE_SCRIPT)
    r.set(key("a"), "me")
    release(keys=[key("a")], args=["you"], client=pipe)
    release(keys=[key("a")], args=["me"], client=pipe)
    check("in a transaction", pipe.execute(), [0, 1])


async def redis_py_asyncio(r):
    mine, yours = (r.lock(key("a"), timeout=LIFE_S, thread_local=False) for _ in range(2))
    check("acquire", await mine.acquire(blocking=False), True)
    check("contend", await yours.acquire(blocking=False), False)
    check("extend", await mine.extend(LIFE_S), True)
    check("by that much", await r.pttl(key("a")), between(LIFE_S * 1_500, LIFE_S * 2_000 + 20))
    check("reacquire", await mine.reacquire(), True)
    yours.local.token = b"not the owner's"
    check("release by another", await raised_by(yours.release()), "LockNotOwnedError")
    check("release", await raised_by(mine.release()), None)
    check("it is free", await r.exists(key("a")), 0)
    waiting = r.lock(key("a"), timeout=LIFE_S, sleep=0.01, thread_local=False)
    async with r.lock(key("a"), timeout=LIFE_S):
        waiter = asyncio.create_task(waiting.acquire(blocking_timeout=DEADLINE_S))
        await asyncio.sleep(0.05)
        check("one waits", waiter.done(), False)
    check("until it is released", await waiter, True)
    await waiting.release()


def redlock_py(r):
    locks = redlock.Redlock([{"host": host, "port": port}], retry_count=2, retry_delay=0.02)
    mine = locks.lock(key("a"), LIFE_S * 1_000)
    check("acquire", bool(mine), True)
    check("contend", locks.lock(key("a"), LIFE_S * 1_000), False)
    locks.unlock(redlock.Lock(0, key("a"), "not the owner's"))
    check("release by another", r.exists(key("a")), 1)
    locks.unlock(mine)
    check("release", r.exists(key("a")), 0)
    locks.lock(key("a"), int(SHORT_S * 1_000))
    check("it lapses", eventually(lambda: locks.lock(key("a"), LIFE_S * 1_000)), bool)


def pottery_redlock(r):
    def lock(life_s=LIFE_S):
        return pottery.Redlock(key=key("a"), masters={r}, auto_release_time=life_s)

    mine, yours = lock(), lock()
    name = mine.key
    check("acquire", mine.acquire(blocking=False), True)
    check("it is ours", mine.locked(), lambda left: left > 0)
    check("contend", yours.acquire(blocking=False), False)
    check("extend", raised(mine.extend), None)
    check("to its whole life", r.pttl(name), between(LIFE_S * 500, LIFE_S * 1_000 + 20))
    check("release by another", raised(yours.release), "ReleaseUnlockedLock")
    check("extend by another", raised(yours.extend), "ExtendUnlockedLock")
    check("release", raised(mine.release), None)
    check("it is free", r.exists(name), 0)
    check("it lapses", (lock(SHORT_S).acquire(blocking=False), eventually(lambda: not r.exists(name))), (True, True))


async def aiocache_redlock(r):
    cache = aiocache.Cache(aiocache.Cache.REDIS, endpoint=host, port=port)
    mine = aiocache.lock.RedLock(cache, key("a"), lease=LIFE_S)
    name = mine.key
    async with mine:
        check("acquire", await r.exists(name), 1)
        yours = aiocache.lock.RedLock(cache, key("a"), lease=SHORT_S)
        began = time.monotonic()
        async with yours:
            check("contend: waits its lease", time.monotonic() - began, lambda s: SHORT_S * 0.9 <= s)
        check("release by another", await r.exists(name), 1)
    check("release", await r.exists(name), 0)
    await cache.close()


async def cashews_lock(r):
    cache = cashews.Cache()
    cache.setup(f"redis://{host}:{port}")
    check("acquire", await cache.set_lock(key("a"), "me", expire=LIFE_S), True)
    check("contend", await cache.set_lock(key("a"), "you", expire=LIFE_S), False)
    check("it is locked", await cache.is_locked(key("a")), True)
    check("release by another", (bool(await cache.unlock(key("a"), "you")), await cache.is_locked(key("a"))), (False, True))
    check("release", (bool(await cache.unlock(key("a"), "me")), await cache.is_locked(key("a"))), (True, False))
    async with cache.lock(key("a"), expire=LIFE_S):
        check("as a block", await cache.is_locked(key("a")), True)
    check("that ends", await cache.is_locked(key("a")), False)
    await cache.set_lock(key("a"), "me", expire=SHORT_S)
    check("it lapses", await cache.is_locked(key("a"), wait=DEADLINE_S, step=0.02), False)
    await cache.close()


async def asynchronous(part, protocol):
    async with redis.asyncio.Redis(host=host, port=port, protocol=protocol) as r:
        await asyncio.wait_for(part(r), DEADLINE_S * 3)


def main():
    global section
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    parts = [
        *((f"redis-py RESP{protocol}", redis_py, protocol) for protocol in (2, 3)),
        *((f"redis-py asyncio RESP{protocol}", redis_py_asyncio, protocol) for protocol in (2, 3)),
        ("redlock-py", redlock_py, 2),
        ("pottery", pottery_redlock, 2),
        ("aiocache", aiocache_redlock, 2),
        ("cashews", cashews_lock, 2),
    ]
    for section, part, protocol in parts:
        try:
            if asyncio.iscoroutinefunction(part):
                asyncio.run(asynchronous(part, protocol))
            else:
                with redis.Redis(host=host, port=port, protocol=protocol) as r:
                    part(r)
        except Exception as error:  # the other libraries are still worth seeing
            check(f"runs to its end ({type(error).__name__}: {error})", False, True)
    print("{passed} passed, {failed} failed".format(**counts))
    sys.exit(counts["failed"] > 0 or counts["passed"] == 0)


main()

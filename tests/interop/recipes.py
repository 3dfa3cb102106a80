"""The Python of recipes.md, run as it stands there, with replies that are lost and namespaces that are full.

Usage: recipes.py HOST PORT [UNIX_SOCKET]
"""

import collections
import contextlib
import sys
import time
import types
import unittest.mock
import uuid
import warnings

import redis
from pages import LosesReplies, blocks, check, failed

PAGE = "recipes.md"
DEADLINE_S = 30


def recipe(heading, port, **replaced):
    """The blocks of a section with the port of this server in them, and what else a test puts there."""
    found = blocks(PAGE, "python", heading)
    assert any("6623" in block for block in found), f"{heading}: the blocks name no port"
    for old, new in {"6623": str(port), **replaced}.items():
        found = [block.replace(old, new) for block in found]
    return found


def run(block, names=None):
    names = names if names is not None else {"__name__": "recipe"}
    exec(compile(block, PAGE, "exec"), names)
    return names


def until(ready):
    end = time.monotonic() + DEADLINE_S
    while not (got := ready()) and time.monotonic() < end:
        time.sleep(0.01)
    return got


def raises(kind, call, *args):
    """The name of what the call raised if it is of this kind, or what it gave or raised else."""
    try:
        return call(*args)
    except kind as error:
        return type(error).__name__
    except Exception as other:
        return repr(other)


def namespace(direct, db):
    kwargs = direct.get_connection_kwargs()
    return redis.Redis(host=kwargs["host"], port=kwargs["port"], db=db)


@contextlib.contextmanager
def no_room_for_a_key(direct, db):
    namespace(direct, db).set("filler", 1)
    direct.execute_command("NS", "SET", f"db{db}", "MAXKEYS", 1)
    try:
        yield
    finally:
        direct.execute_command("NS", "SET", f"db{db}", "MAXKEYS", 0)


def django(proxy, direct):
    import django.conf

    settings, views = recipe("Django: webhooks", proxy.port)
    caches = run(settings)["CACHES"]
    own = {**caches["once"], "BACKEND": "django.core.cache.backends.redis.RedisCache", "KEY_PREFIX": "own"}
    django.conf.settings.configure(CACHES={**caches, "own": own})
    from django.core.cache import caches as made
    from django.test import RequestFactory
    from django_redis.cache import RedisCache
    from django_redis.exceptions import ConnectionInterrupted

    processed = collections.Counter()
    names = run(views, {"__name__": "views", "process": lambda event: processed.update([event["id"]])})
    works = names["process"]

    def deliver(id):
        """One delivery, whose answer is 500 where the view raises."""
        try:
            return names["webhook"](RequestFactory().post("/", {"id": id}, content_type="application/json")).status_code
        except Exception:
            return 500

    def delivers(ids):
        """As a provider does: again, until it is told that all is well."""
        return all(until(lambda: deliver(id) == 204) for id in ids)

    for kind, cache in (("django-redis", made["once"]), ("django's own", made["own"])):
        names["caches"] = {"once": cache}
        processed.clear()
        ids = [f"evt_{number}" for number in range(20)]
        names["LEASE_S"] = 1
        proxy.loses(8, b"SET")
        check(f"{kind}: lost replies: all are accepted", delivers(ids + ids[::-1]), True)
        check(f"{kind}: lost replies: each once", (len(processed), set(processed.values())), (20, {1}))
        check(f"{kind}: replies were lost", proxy.lost > 3, True)
        proxy.loses(0)

        names["LEASE_S"] = 60
        names["process"] = lambda event: 1 / 0
        check(f"{kind}: processing fails", deliver("failed"), 500)
        inner = []
        names["process"] = lambda event: inner.append(deliver("busy"))
        check(f"{kind}: one comes while it works", (deliver("busy"), inner), (204, [503]))
        names["process"] = works
        check(f"{kind}: a failed one is tried again", (deliver("failed"), processed["failed"]), (204, 1))

        with no_room_for_a_key(direct, 3):
            check(f"{kind}: full: an error", (deliver("more"), processed["more"]), (500, 0))
        check(f"{kind}: full: not marked", (deliver("more"), processed["more"]), (204, 1))

    server, once = namespace(direct, 3), made["once"]
    check("django-redis: the key, for a day", 86_000 < server.ttl(":1:evt_17") <= 86_400, True)
    once.set_many({"a": 1, "b": [2]}, 60)
    check("django-redis: set_many, get_many", once.get_many(["a", "b", "c"]), {"a": 1, "b": [2]})
    check("django-redis: touch, ttl", (once.touch("a", 600), 590 <= once.ttl("a") <= 600), (True, True))
    once.set("ever", 1, timeout=None)
    check("django-redis: no timeout is the namespace's", 3500 < once.ttl("ever") <= 3600, True)
    check("django-redis: incr, decr", (once.incr("a", 4), once.decr("a")), (5, 4))
    check("django-redis: keys", sorted(once.keys("evt_1*")), sorted(id for id in ids if id.startswith("evt_1")))
    check("django-redis: delete_pattern", once.delete_pattern("evt_1*"), 11)
    once.clear()
    check("django-redis: clear empties its namespace", server.dbsize(), 0)

    down = {**caches["once"], "LOCATION": "redis://127.0.0.1:1/3"}
    add = RedisCache(down["LOCATION"], down).add
    check("django-redis: down: an error", raises((ConnectionInterrupted, redis.ConnectionError), add, "a", 1), "ConnectionError")
    add = RedisCache(down["LOCATION"], {**down, "OPTIONS": {"IGNORE_EXCEPTIONS": True}}).add
    check("django-redis: down and errors ignored: not the first", bool(add("a", 1)), False)


def celery(proxy, direct):
    from celery.contrib.testing.worker import start_worker
    from celery.result import EagerResult
    from celery_once import AlreadyQueued

    backend, tasks = recipe("Celery: one task in the queue", proxy.port, **{"amqp://localhost": "memory://"})
    assert "memory://" in tasks, "the page names its broker otherwise"
    module = types.ModuleType("once_backend")
    sys.modules["once_backend"] = module
    run(backend, module.__dict__)
    sent = collections.Counter()
    names = run(tasks, {"__name__": "tasks", "send": lambda order, language: sent.update([order])})
    task = names["send_invoice"]
    server = namespace(direct, 2)

    def enqueue(*args, **kwargs):
        """Whether it was queued."""
        result = task.delay(*args, **kwargs)
        return not (isinstance(result, EagerResult) and result.state == "REJECTED")

    # No worker is there yet, so what is queued waits.
    proxy.loses(3, b"SET")
    queued = [enqueue(str(order)) for order in [*range(50), *range(50)]]
    check("celery: the second of each is rejected", queued, [True] * 50 + [False] * 50)
    check("celery: replies were lost", proxy.lost > 10, True)
    proxy.loses(0)
    check("celery: another language, the same order", enqueue("7", language="fr"), False)
    check("celery: marks for an hour", 3_500_000 < server.pttl("qo_tasks.send_invoice_order_id-7") <= 3_600_000, True)
    got = raises(AlreadyQueued, lambda: task.apply_async(args=("7",), once={"graceful": False}))
    check("celery: not graceful", got, "AlreadyQueued")
    with start_worker(names["app"], perform_ping_check=False, pool="solo"):
        until(lambda: server.dbsize() == 0)
    check("celery: each ran once", (len(sent), set(sent.values()), server.dbsize()), (50, {1}, 0))
    check("celery: queued again once it has run", enqueue("7"), True)

    with no_room_for_a_key(direct, 2):
        check("celery: full: an error", raises(redis.OutOfMemoryError, task.delay, "50"), "OutOfMemoryError")
    check("celery: full: not marked", enqueue("50"), True)
    stock = unittest.mock.patch.dict(names["app"].conf.ONCE, backend="celery_once.backends.Redis")
    for kind, backend, want in (("this", contextlib.nullcontext(), True), ("celery-once's own", stock, False)):
        proxy.loses(2, b"SET")
        proxy.seen = 1  # the next one is lost
        with backend:
            check(f"celery: a reply is lost: {kind} backend queues it", (enqueue(f"lost: {kind}"), proxy.lost), (want, 1))
    proxy.loses(0)
    with unittest.mock.patch("celery.Task.apply_async", side_effect=OSError):
        check("celery: no broker", raises(OSError, task.delay, "51"), "OSError")
    check("celery: what the broker did not take is kept from being queued", enqueue("51"), False)


class Context:
    """As much of a Lambda context as Powertools looks at."""

    function_name = "pay"
    left_ms = 60_000

    def get_remaining_time_in_millis(self):
        return self.left_ms


def powertools(proxy, direct):
    from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, exceptions, idempotent
    from aws_lambda_powertools.utilities.idempotency.persistence.cache import CachePersistenceLayer

    warnings.simplefilter("ignore", DeprecationWarning)  # the class behind the name CachePersistenceLayer
    (block,) = recipe("AWS Lambda in Python", proxy.port)
    charged = collections.Counter()

    def charge(order_id, amount):
        charged.update([order_id])
        return uuid.uuid4().hex

    names = run(block, {"__name__": "pay", "charge": charge})
    handler, context = names["lambda_handler"], Context()
    event = {"order_id": "17", "amount": 20}
    first = handler(event, context)
    check("powertools: a repeat has the same answer", handler(event, context), first)
    check("powertools: charged once", charged["17"], 1)
    check("powertools: another amount is another event", handler({**event, "amount": 21}, context) == first, False)

    inner = {}
    names["charge"] = lambda order_id, amount: inner.update(got=raises(exceptions.IdempotencyAlreadyInProgressError, handler, busy, context))
    busy = {"order_id": "busy", "amount": 1}
    handler(busy, context)
    check("powertools: while it works, a repeat is told so", inner["got"], "IdempotencyAlreadyInProgressError")
    names["charge"] = charge

    def ends(event):
        """As Lambda's queue does: again, until it comes to an end."""

        def came():
            with contextlib.suppress(exceptions.IdempotencyAlreadyInProgressError):
                return handler(event, context)

        return until(came)

    context.left_ms = 1500
    for number, (lost, want) in enumerate([("claim's", "IdempotencyAlreadyInProgressError"), ("answer's", "answered")] * 2):
        event = {"order_id": f"lost-{number}", "amount": 1}
        proxy.loses(2, b"SET")
        proxy.seen = (number + 1) % 2  # the next one, or the one behind it
        got = raises(exceptions.IdempotencyAlreadyInProgressError, handler, event, context)
        check(f"powertools: the {lost} reply is lost", ("answered" if isinstance(got, dict) else got, proxy.lost), (want, 1))
        proxy.loses(0)
        check("powertools: a repeat comes to an end, charged once", (ends(event) is None, charged[event["order_id"]]), (False, 1))

    refused = "IdempotencyPersistenceLayerError"
    with no_room_for_a_key(direct, 1):
        more = {"order_id": "more", "amount": 1}
        check("powertools: full: an error", raises(exceptions.IdempotencyPersistenceLayerError, handler, more, context), refused)
    check("powertools: full: nothing was done", charged["more"], 0)

    late = {"order_id": "late", "amount": 1}

    def charge_as_memory_ends(order_id, amount):
        charge(order_id, amount)
        direct.config_set("maxmemory", 1 << 20)
        return "x" * 20_000

    names["charge"] = charge_as_memory_ends
    with more_stored_than_a_mib(direct, 9):
        got = raises(exceptions.IdempotencyPersistenceLayerError, handler, late, context)
    names["charge"] = charge
    check("powertools: no memory for the answer: an error", (got, charged["late"]), (refused, 1))
    check("powertools: no memory for the answer: done again", (ends(late) is None, charged["late"]), (False, 2))
    names["charge"] = lambda *_: "x" * 300_000
    large = {"order_id": "large", "amount": 1}
    check("powertools: an answer over max-value", raises(exceptions.IdempotencyPersistenceLayerError, handler, large, context), refused)

    # What the page says of Powertools itself.
    bare = CachePersistenceLayer(host="127.0.0.1", port=6623).client
    check("powertools: without a client it asks for TLS", issubclass(bare.connection_pool.connection_class, redis.SSLConnection), True)
    config = IdempotencyConfig(event_key_jmespath="order_id", payload_validation_jmespath="amount")
    store = CachePersistenceLayer(client=names["onced"])
    validated = idempotent(lambda event, context: "done", persistence_store=store, config=config)
    check("powertools: payload validation: done", validated(event, context), "done")
    again = raises(exceptions.IdempotencyValidationError, validated, event, context)
    check("powertools: payload validation refuses a true repeat", again, "IdempotencyValidationError")


@contextlib.contextmanager
def more_stored_than_a_mib(direct, db):
    """Meanwhile a bound of 1 MiB leaves no memory; the bound that was is put back."""
    bound = direct.config_get("maxmemory")["maxmemory"]
    ballast = namespace(direct, db)
    for number in range(10):
        ballast.set(f"ballast-{number}", "x" * 200_000)
    try:
        yield
    finally:
        direct.config_set("maxmemory", bound)
        ballast.flushdb()


def scan_iter(proxy, direct):
    (block,) = recipe("Listing keys with scan_iter", proxy.port)
    names = run(block)
    server = namespace(direct, 4)
    names["onced"] = redis.Redis(port=proxy.port, db=4)
    keys = [f"customer-{number % 2}:{number}" for number in range(20_000)]
    for at in range(0, len(keys), 1000):
        server.execute_command("MSEEN", "1h", *keys[at : at + 1000])

    def calls_of(work, *args):
        before = scans_executed(direct)
        return work(*args), scans_executed(direct) - before

    listed, many = calls_of(lambda: sorted(key.decode() for key in names["onced"].scan_iter()))
    check("scan_iter: each key once", listed, sorted(keys))
    proxy.loses(5, b"SCAN", b"UNLINK")
    forgotten = names["forget"]("customer-1:*")
    check("scan_iter: some replies were lost", proxy.lost > 0, True)
    proxy.loses(0)
    check("scan_iter: counts no more than were forgotten", forgotten <= 10_000, True)
    check("scan_iter: the others are left", {key[:10] for key in server.keys("*")}, {b"customer-0"})
    check("scan_iter: all others", server.dbsize(), 10_000)
    forgotten, few = calls_of(names["forget"], "customer-0:*")
    check("scan_iter: counts them", forgotten, 10_000)
    check(f"scan_iter: a tenth of the default's calls at most ({few} and {many})", few * 10 <= many, True)


def scans_executed(direct):
    return direct.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"]


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    proxy = LosesReplies(host, port)
    direct = redis.Redis(host=host, port=port)
    for db in (1, 2, 3, 4, 9):
        namespace(direct, db).flushdb()
    for test in (django, celery, powertools, scan_iter):
        test(proxy, direct)
    return failed()


if __name__ == "__main__":
    sys.exit(main())

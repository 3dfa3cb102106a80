"""README's examples in Python, run as they stand there, with everything going wrong around them.

Usage: readme.py HOST PORT [UNIX_SOCKET]

Between redis-py and the server is a proxy that loses replies: it passes a request on, waits for the
server's answer and closes the connection instead of telling it, so that redis-py asks again by itself.
Keys are those of namespaces that are full, that another consumer has claims in, or that cannot know.
Whatever happens, each event is to be processed once at least, and once exactly where nobody died and
no reply to an acknowledgement was lost.
"""

import collections
import sys
import time

import redis

from pages import LosesReplies, blocks, check, failed

DEADLINE_S = 60


def example(client):
    """What the README defines, with this client in the place of its own, and what it has processed."""
    code = "\n".join(block for block in blocks("README.md", "python") if "def handle(" in block)
    line = "onced = redis.Redis(port=6623)\n"
    assert line in code, "the README makes its client otherwise"
    processed = collections.Counter()
    names = {"process": lambda event: processed.update([event["id"]])}
    exec(compile(code.replace(line, ""), "README.md", "exec"), names)
    names["onced"] = client
    return names, processed


def events(name, count):
    """Each twice, the second one some way behind the first."""
    ids = [f"{name}-{number}" for number in range(count)]
    return [{"id": id} for id in ids + ids[::-1]]


def batches(events, size=50):
    return [events[at : at + size] for at in range(0, len(events), size)]


def hand_in(handle_many, batch):
    """As a consumer would: what comes back, or failed, is handed in again."""
    end = time.monotonic() + DEADLINE_S
    while batch and time.monotonic() < end:
        try:
            batch = handle_many(batch)
        except redis.RedisError:
            continue
        if batch:
            time.sleep(0.02)
    return batch


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    proxy = LosesReplies(host, port)
    direct = redis.Redis(host=host, port=port, decode_responses=True)
    for decodes in (False, True):
        kind = "str" if decodes else "bytes"

        def client(db):
            """One as redis-py makes it, which asks again by itself, in the namespace `db<db>`."""
            db += 100 * decodes
            direct.execute_command("NS", "SET", f"db{db}")
            direct.execute_command("NS", "PURGE", f"db{db}")  # other scripts leave keys there for a while
            return redis.Redis(host="127.0.0.1", port=proxy.port, db=db, decode_responses=decodes, socket_timeout=5), f"db{db}"

        # Each reply in seven is lost.
        made, _ = client(1)
        names, processed = example(made)
        proxy.loses(7, b"SET")
        for event in events("one", 300):
            names["handle"](event)
        check(f"handle, {kind}, lost replies: each once", set(processed.values()), {1})
        check(f"handle, {kind}, lost replies: all", len(processed), 300)
        check(f"handle, {kind}: replies were lost", proxy.lost > 50, True)

        # A batch whose reply is lost finds its own claims, until these have lapsed.
        made, _ = client(2)
        names, processed = example(made)
        short = short_lease(names)
        proxy.loses(3, b"MBEGIN", b"MCOMPLETE")
        left = [event for batch in batches(events("many", 300)) for event in hand_in(short, batch)]
        check(f"handle_many, {kind}, lost replies: none is left", left, [])
        check(f"handle_many, {kind}, lost replies: all", len(processed), 300)
        check(f"handle_many, {kind}: replies were lost", proxy.lost > 3, True)
        proxy.loses(0)

        # Nothing is lost: each once.
        made, _ = client(3)
        names, processed = example(made)
        left = [event for batch in batches(events("calm", 300)) for event in names["handle_many"](batch)]
        check(f"handle_many, {kind}: each once", (set(processed.values()), len(processed), left), ({1}, 300, []))

        # Full: nothing is marked, and nothing processed, until there is room.
        made, full = client(4)
        names, processed = example(made)
        direct.execute_command("NS", "SET", full, "MAXKEYS", 20)
        left = names["handle_many"](events("full", 100)[:100])
        check(f"handle_many, {kind}, full: the others are handed back", (len(processed), len(left)), (20, 80))
        try:
            names["handle"]({"id": "one more"})
            check(f"handle, {kind}, full: an error", "none", "OutOfMemoryError")
        except redis.OutOfMemoryError:
            check(f"handle, {kind}, full: an error", processed["one more"], 0)
        direct.execute_command("NS", "SET", full, "MAXKEYS", 0)
        left = hand_in(names["handle_many"], left)
        names["handle"]({"id": "one more"})
        check(f"{kind}, no longer full: each once", (set(processed.values()), len(processed), left), ({1}, 101, []))

        # Another has claimed them, and dies: they are handed back, and taken once its lease has lapsed.
        made, _ = client(5)
        names, processed = example(made)
        other, _ = client(5)
        other.execute_command("MBEGIN", "1h", "300ms", *(f"busy-{number}" for number in range(50)))
        batch = events("busy", 100)[:100]
        left = names["handle_many"](batch)
        check(f"handle_many, {kind}, claimed by another: handed back", (len(processed), len(left)), (50, 50))
        left = hand_in(names["handle_many"], left)
        check(f"handle_many, {kind}, the other is dead: each once", (set(processed.values()), len(processed)), ({1}, 100))

        # A namespace that cannot know: it says so, and they are processed.
        made, unsure = client(6)
        names, processed = example(made)
        direct.execute_command("NS", "SET", unsure, "UNSURE", "REPORT")
        left = names["handle_many"](events("unsure", 50))
        check(f"handle_many, {kind}, unsure: each once", (set(processed.values()), len(processed), left), ({1}, 50, []))
    return failed()


def short_lease(names):
    """The same with a lease that a test can wait for."""
    wrapped = names["onced"].execute_command

    def execute_command(*words):
        if words[0] == "MBEGIN":
            words = (*words[:2], "300ms", *words[3:])
        return wrapped(*words)

    names["onced"].execute_command = execute_command
    return names["handle_many"]


if __name__ == "__main__":
    sys.exit(main())

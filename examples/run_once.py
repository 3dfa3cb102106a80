"""Work done once, from Python, with nothing but redis-py.

    pip install redis
    python3 examples/run_once.py

Talks to onced at 127.0.0.1:6623; give another HOST:PORT behind the name. Twenty threads ask for the
same charge, whose first attempt fails: the card is charged once, and all of them get the receipt.
"""

import sys
import threading
import time
import uuid

import redis


class Busy(Exception):
    """Another is still at work."""


class Mismatch(Exception):
    """The key was used for something else."""


class Failed(Exception):
    """The work failed for good, with this code and body."""


class LeaseLost(Exception):
    """The lease lapsed while the work ran, and another took it over."""


def ms(seconds):
    """A duration as onced takes it."""
    return f"{round(seconds * 1000)}ms"


def text(told):
    """A word of a reply, whether or not the client decodes replies by itself."""
    return told.decode() if isinstance(told, bytes) else told


def run_once(client, key, work, *, lease_s=10, wait_s=30, fingerprint=None):
    """Does the work behind a key, or gets what came of it: (code, body, whether it was done by this call).

    `work(token, attempt)` returns (code, body). If it raises, the key is free for the next one. The client
    must be ready to wait for a reply for as long as `wait_s`: redis-py gives up after 5 s unless told
    otherwise, and asks again, from the end of the line.
    """
    patience_s = client.get_connection_kwargs().get("socket_timeout")
    if patience_s is not None and patience_s <= wait_s:
        raise ValueError(f"socket_timeout={patience_s} is not more than wait_s={wait_s}")
    # Names this attempt: if the reply is lost and redis-py asks again, it is told the same token.
    begin = ["BEGIN", key, "LEASE", ms(lease_s), "WAIT", ms(wait_s), "OWNER", uuid.uuid4().hex]
    if fingerprint:
        begin += ["FP", fingerprint]
    told = client.execute_command(*begin)
    word, *rest = told if isinstance(told, list) else [told]
    word = text(word)
    if word == "MISMATCH":
        raise Mismatch(key)
    if word == "BUSY":
        raise Busy(key)
    if word == "FAILED":
        raise Failed(*rest)
    if word == "DONE":
        code, body = rest
        return code, body, False
    token, _lease_ms, attempt = rest

    # Beside the work, so that the lease can be short: if this process dies, others wait 10 s at most.
    ended, lost = threading.Event(), threading.Event()

    def renew():
        while not ended.wait(lease_s / 3):
            try:
                if text(client.execute_command("RENEW", key, token)) == "STALE":
                    lost.set()
                    return
            except redis.RedisError:
                pass  # the next one may get through

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        code, body = work(token, attempt)
    except BaseException:
        client.execute_command("FAIL", key, token, "RETRY")
        raise
    finally:
        ended.set()
        renewing.join(lease_s)
    if lost.is_set():
        raise LeaseLost(key)
    # ADOPT: also if the server was restarted without its memory meanwhile.
    complete = ["COMPLETE", key, token, "CODE", code, "ADOPT", "BODY", body]
    if fingerprint:
        complete += ["FP", fingerprint]
    if text(client.execute_command(*complete)) != "OK":
        raise LeaseLost(key)
    return code, body, True


def main():
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:6623").rpartition(":")
    client = redis.Redis(host=host, port=int(port), socket_timeout=40)
    key = f"charge-{uuid.uuid4()}"
    charges, told, failures = [], [], []

    def charge(token, attempt):
        time.sleep(0.2)
        if attempt == 1:
            raise ConnectionError("the card network is down")
        charges.append(token)
        return 201, f"receipt {uuid.uuid4().hex[:8]}"

    def ask():
        try:
            told.append(run_once(client, key, charge))
        except ConnectionError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    receipts = {text(body) for _, body, _ in told}
    done = sum(fresh for _, _, fresh in told)
    print(f"20 callers: {len(failures)} failed, {done} charged the card, {len(told) - done} got its receipt")
    print(f"charges: {len(charges)}, receipts: {', '.join(sorted(receipts))}")
    if (len(charges), len(receipts), len(failures), done) != (1, 1, 1, 1):
        sys.exit("that is wrong")


if __name__ == "__main__":
    main()

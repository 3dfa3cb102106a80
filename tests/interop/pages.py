"""What the tests that run a page's code have in common: its code blocks, checks, and a proxy that loses replies."""

import pathlib
import re
import select
import socket
import threading

ROOT = pathlib.Path(__file__).parents[2]
counts = {"passed": 0, "failed": 0}


def check(name, got, want):
    counts["passed" if got == want else "failed"] += 1
    print(f"ok    {name}" if got == want else f"FAIL  {name}: got {str(got)[:300]}, want {str(want)[:300]}")


def failed():
    """Tells what the checks came to; whether one has failed."""
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return counts["failed"] > 0


def blocks(page, language, heading=None):
    """The code blocks of this language in a page, or in one section of it."""
    text = (ROOT / page).read_text()
    if heading:
        text = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


class LosesReplies(threading.Thread):
    """A proxy that loses the reply to every n-th request whose verb is one of these; 0 loses none."""

    def __init__(self, host, port):
        super().__init__(daemon=True)
        self.target = (host, port)
        self.every, self.verbs, self.lost = 0, (), 0
        self.seen = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def loses(self, every, *verbs):
        self.every, self.verbs, self.seen, self.lost = every, verbs, 0, 0

    def run(self):
        while True:
            near, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        with near, socket.create_connection(self.target) as far:
            loses_next = False
            try:
                while True:
                    # Either side may speak: a client may send several requests and be answered in several parts.
                    for side in select.select([near, far], [], [])[0]:
                        received = side.recv(1 << 20)
                        if not received or side is far and loses_next:
                            return
                        if side is near:
                            loses_next = self.is_lost(received)
                        (far if side is near else near).sendall(received)
            except OSError:
                return

    def is_lost(self, request):
        if not self.every or not any(b"\r\n%b\r\n" % verb in request[:40] for verb in self.verbs):
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        self.lost += 1
        return True

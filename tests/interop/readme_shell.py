"""README's sessions in a shell, pasted one after the other into one bash, say what stands there.

Usage: readme_shell.py HOST PORT [UNIX_SOCKET]

HOST and PORT are of a server that somebody else started; the README's own is the one on port 6623, which
becomes that one, and the port 6624 one that is free. Blocks of the language `console` are run: lines that
begin with `$ ` and `> ` are typed, all others are what comes of them.
"""

import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import tempfile

from pages import blocks

# These need what a test of their own has: a service that was started, a date.
ELSEWHERE = ("curl ",)
BLOCKS_MIN = 4
counts = {"passed": 0, "failed": 0}


def check(name, got, want):
    counts["passed" if got == want else "failed"] += 1
    print(f"ok    {name}" if got == want else f"FAIL  {name}:\n  got  {got!r}\n  want {want!r}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as place:
        return place.getsockname()[1]


def sessions():
    """Of each block: its commands and what they answer."""
    for block in blocks("README.md", "console"):
        if any(word in block for word in ELSEWHERE):
            continue
        session = []
        for line in block.splitlines():
            if line.startswith("$ "):
                session.append((line[2:], []))
            elif line.startswith("> "):
                command, answer = session.pop()
                session.append((f"{command}\n{line[2:]}", answer))
            else:
                session[-1][1].append(line)
        yield session


def main():
    host, port = sys.argv[1], sys.argv[2]
    other = str(free_port())
    binary = pathlib.Path(os.environ["ONCED_BINARY"]).resolve()
    with tempfile.TemporaryDirectory() as scratch:
        (pathlib.Path(scratch) / "onced").symlink_to(binary)
        report = pathlib.Path(scratch) / "send-report"
        report.write_text("#!/bin/sh\necho the report is sent\n")
        report.chmod(report.stat().st_mode | stat.S_IXUSR)
        environment = dict(os.environ, PATH=f"{scratch}:{os.environ['PATH']}", ONCED_SERVER=f"{host}:{port}", FAKETTY="1")
        found = 0
        for session in sessions():
            found += 1
            script = ""
            for number, (command, _) in enumerate(session):
                # ONCED_SERVER names the server above once more, where the README has the default.
                command = command.replace("6623", port).replace("6624", other)
                command = command.replace("unset ONCED_SERVER", f"export ONCED_SERVER={host}:{port}")
                script += f"echo @@{number}\n{command}\n"
            ran = subprocess.run(
                ["bash"], input=script, capture_output=True, text=True, cwd=scratch, env=environment, timeout=60
            )
            parts = re.split(r"^@@\d+\n", ran.stdout, flags=re.M)[1:]
            check(f"block {found}: ran to its end", len(parts), len(session))
            for (command, want), got in zip(session, parts):
                check(command.splitlines()[0][:70], got.rstrip("\n"), "\n".join(want))
            check(f"block {found}: no complaint", re.sub(r".*Killed .*\n?", "", ran.stderr), "")
        check("blocks were found", found >= BLOCKS_MIN, True)
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())

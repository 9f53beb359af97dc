"""Inside the sandbox: close the doors, run one program, say whether it came to its end.

Started as a script with its settings as JSON in the first argument; the order comes by stdin.
It imports nothing of this repository.
"""

import json
import os
import resource
import socket
import sys
from typing import Any, NoReturn

FILE_BYTES = 64 * 2**20
NOTE_CHARACTERS = 200


def enter(settings: dict[str, Any]) -> int:
    """Set the limits and point stdout at nothing; a descriptor of the stdout that was."""
    memory = settings["memory_mib"] * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings["block_sockets"]:
        block_sockets()
    channel = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    return channel


def block_sockets() -> None:
    """Make every new socket of this interpreter an error."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError("graded programs have no network")

    for name in ("socket", "socketpair", "create_connection", "getaddrinfo", "fromfd"):
        setattr(socket, name, refuse)
    socket._socket.socket = refuse  # type: ignore[attr-defined]


def error_of(program: str) -> str | None:
    """Run a program; None when it came to its end, else what it raised."""
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:NOTE_CHARACTERS]
    return None


def main() -> None:
    channel = enter(json.loads(sys.argv[1]))
    order = json.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    verdict = {"token": order["token"], "error": error_of(order["program"])}
    os.write(channel, json.dumps(verdict).encode())
    # Threads that the program left behind do not hold the verdict up.
    os._exit(0)


if __name__ == "__main__":
    main()

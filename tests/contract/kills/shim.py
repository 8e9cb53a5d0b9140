"""Runs as Python where the controller launches a job: has the zygote fork it, and lives and dies with it."""

import json
import os
import socket
import sys

caller = socket.socket(socket.AF_UNIX)
caller.connect(SOCKET)  # type: ignore[name-defined]  # noqa: F821 - the world writes it in
arguments = sys.argv[3:]
asked = {
    "role": "job",
    "arguments": arguments,
    "config": arguments[arguments.index("--config") + 1],
    "shim": os.getpid(),
}
caller.sendall(json.dumps(asked).encode() + b"\n")
while caller.recv(4096):
    pass

"""When a process of a node counts as gone."""

from __future__ import annotations

import signal
import subprocess
import sys

from pipeline.broker import ports, processes

SERVER = """
import socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
memory = bytearray(100_000_000)
for _ in range(20):
    threading.Thread(target=time.sleep, args=[60], daemon=True).start()
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


def test_a_killed_process_is_gone_when_its_ports_are_free() -> None:
    for _ in range(10):
        # Given a server with many threads
        with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            # When it is killed and counts as gone, though nobody has reaped it
            processes.end([server.pid], signal.SIGKILL, 10)
            # Then its port can be had
            assert ports.is_free(port)

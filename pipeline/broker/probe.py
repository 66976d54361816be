"""Does a broker really answer? In: its addresses. Out: yes or no, and what it says of itself.

A port that accepts connections proves little: Docker's proxy and a booting node do that too.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit, urlunsplit

from pipeline.addresses import addresses_of

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD_FRAME = 1
CONNECTION_START = b"\x00\x0a\x00\x0a"  # class 10, method 10


def accepts_amqp(url: str, timeout: float = 2.0) -> bool:
    """Whether the server at an `amqp://` or `amqps://` URL answers the protocol header with Connection.Start.

    Of several addresses one is enough; each has `timeout` seconds.
    """
    return any(_accepts(address, timeout) for address in addresses_of(url))


def _accepts(url: str, timeout: float) -> bool:
    parts = urlsplit(url)
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    try:
        with socket.create_connection((parts.hostname or "localhost", port), timeout) as plain:
            if parts.scheme != "amqps":
                return _greets(plain)
            # Who the server is gets verified by the client that logs in; here only: is it AMQP?
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=parts.hostname) as secure:
                return _greets(secure)
    except OSError:
        return False


def overview(management_url: str, timeout: float = 2.0) -> dict[str, object] | None:
    """What the management API says of the node (`node`, `rabbitmq_version`, …); None when it does not answer
    us. Of several addresses, the first that does.
    """
    answers = (_overview(address, timeout) for address in addresses_of(management_url))
    return next((answer for answer in answers if answer is not None), None)


def _overview(management_url: str, timeout: float) -> dict[str, object] | None:
    parts = urlsplit(management_url)
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/api/overview", "", ""))
    request = urllib.request.Request(  # noqa: S310 - http or https, from our own settings
        bare, headers={"Authorization": f"Basic {base64.b64encode(login).decode()}"}
    )
    # A proxy from the environment must not see, or fail, a request to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            body = json.load(response)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        return None
    except (OSError, ValueError):  # URLError is an OSError
        return None
    return body if isinstance(body, dict) else None


def _greets(connection: socket.socket) -> bool:
    connection.sendall(PROTOCOL_HEADER)
    answer = b""
    while len(answer) < 11:  # frame: type, channel (2), size (4), then class and method id
        chunk = connection.recv(11 - len(answer))
        if not chunk:
            return False
        answer += chunk
    return answer[0] == METHOD_FRAME and answer[7:] == CONNECTION_START

"""Which port the service takes, and who has it if it is busy."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys

import psutil

from harmonia_serve.cli.problems import CommandFailed

__all__ = ["choose_port", "claim", "holder_of_port", "is_free", "is_loopback", "service_url"]

#: So many ports above the default one are tried.
_PORTS_TRIED = 100


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def claim(port: int) -> socket.socket | None:
    """Keep a port for this process, before anything listens there; None if another has it.

    Between the choice of a port and the moment it is bound lie seconds, and HAProxies share a port
    without a word. What is claimed is a name in the kernel that goes with the process; where there
    is no such thing, the socket that is returned keeps nobody away.
    """
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if sys.platform == "linux":
        try:
            holder.bind(f"\0harmonia/port/{port}")
        except OSError:
            holder.close()
            return None
    return holder


def is_free(host: str, port: int) -> bool:
    """Whether a server can listen there. Raises CommandFailed for a host that is not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CommandFailed(
            f"'{host}' is not an address of this machine: {error}", "Choose another --host."
        ) from error
    with socket.socket(family, kind, protocol) as listener:
        # Connections that are still closing down do not make a port busy; a listener does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except PermissionError as error:
            raise CommandFailed(
                f"this user may not listen on port {port}", "Choose a --port above 1023."
            ) from error
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise CommandFailed(
                    f"'{host}' is not an address of this machine", "Choose another --host."
                ) from error
            return False
    return True


def holder_of_port(port: int) -> str:
    """The process that listens on a port, as far as this user can see."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return "a process that this user may not see"
    for connection in connections:
        address = connection.laddr
        if connection.status != psutil.CONN_LISTEN or not address or address.port != port:
            continue
        if connection.pid is None:
            break
        try:
            return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
        except psutil.Error:
            break
    return "a process that this user may not see"


def choose_port(host: str, port: int, *, explicit: bool) -> tuple[int, socket.socket]:
    """The port to use, and what keeps it for this process until it is closed.

    That is the port asked for, or the next free one above the default. Raises CommandFailed if a
    port that was asked for is busy, naming who has it.
    """
    found = _free_and_claimed(host, port)
    if found is not None:
        return port, found
    if explicit:
        who = "another `harmonia up`" if is_free(host, port) else holder_of_port(port)
        raise CommandFailed(
            f"port {port} is taken by {who}",
            "Stop it, or choose another --port (without --port a free one is taken).",
        )
    for candidate in range(port + 1, min(port + 1 + _PORTS_TRIED, 65_536)):
        found = _free_and_claimed(host, candidate)
        if found is not None:
            return candidate, found
    raise CommandFailed(
        f"no free port between {port} and {port + _PORTS_TRIED}", "Choose one with --port."
    )


def _free_and_claimed(host: str, port: int) -> socket.socket | None:
    claimed = claim(port)
    if claimed is not None and not is_free(host, port):
        claimed.close()
        return None
    return claimed


def service_url(host: str, port: int) -> str:
    """The URL at which this machine reaches a service that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        return f"http://{'127.0.0.1' if address.version == 4 else '[::1]'}:{port}"
    return f"http://{f'[{host}]' if address.version == 6 else host}:{port}"

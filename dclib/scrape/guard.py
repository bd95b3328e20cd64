"""Connections that an untrusted link cannot misuse: public addresses only, and an end to waiting.

The address is checked where the connection is made, not by a look-up before it: redirects, odd
spellings of 127.0.0.1 and names that change their answer all come through here.
"""

import contextlib
import ipaddress
import socket
import threading
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Self
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError
from urllib3.exceptions import NewConnectionError as CannotConnect

from dclib.scrape.sources import PORTS, join

CONNECT_SECONDS, SILENCE_SECONDS = 10, 15
# Addresses of version 6 that count as public and carry one of version 4 inside: NAT64, its local
# form, 6to4, and the deprecated compatible ones.
TUNNELS = [*map(ipaddress.ip_network, ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96"])]
_running = threading.local()


class NotAllowed(HTTPError):
    """A URL or an address that is not fetched; the message says why."""


def check_url(url: str, opening: tuple[str, int] | None = None) -> None:
    """Raise NotAllowed for what `join` refuses, and for ports but the web's and `opening`'s."""
    parts = urlsplit(join("", url))
    if not parts.netloc:
        raise NotAllowed(f"{url[:200]} is no http or https address that can be asked for.")
    if parts.port and (parts.hostname, parts.port) != opening:  # a usual one is left out
        raise NotAllowed(f"{parts.netloc} is not the port of a public web site.")


def is_public(address: str) -> bool:
    """Whether an IP address, as text, is public, and none inside one of version 6 is private."""
    ip = ipaddress.ip_address(address)
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.version == 6 and any(ip in network for network in TUNNELS):
        return False
    return ip.is_global and not ip.is_multicast


def guarded_session(opening: tuple[str, int] | None = None) -> requests.Session:
    """A session to public addresses (and `opening`), without cookies, environment, redirects."""
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _GuardedAdapter(opening)
    for scheme in PORTS:
        session.mount(f"{scheme}://", adapter)
    return session


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> None:
        """None: requests would read the whole body of a redirect, however long it is."""


class Deadline:
    """Within `with Deadline(seconds):` the connection of this thread is cut off when time is up.

    A time-out of sockets only bounds each silence; a server that sends a byte now and then passes
    it for ever. `passed` tells whether that happened.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self.sock: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        _running.deadline = self
        self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        _running.deadline = None

    def _cut(self) -> None:
        self.passed = True
        if self.sock is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # below TLS, which would wait


class _Guarded(HTTPConnection):
    """Mixed into urllib3's connections."""

    opening: tuple[str, int] | None = None

    def _new_conn(self) -> socket.socket:
        name, failures = self._dns_host, []
        for address in self._allowed_addresses(name):
            self._dns_host = address  # connect to what was checked, not to a second look-up
            try:
                sock = super()._new_conn()
                break
            except (CannotConnect, ConnectTimeoutError) as error:
                failures.append(error)
            finally:
                self._dns_host = name
        else:
            raise failures[-1]
        peer = sock.getpeername()[:2]
        if peer != self.opening and not is_public(peer[0]):
            sock.close()
            raise NotAllowed(f"{name} turned out to be {peer[0]}, which is not a public address.")
        return sock

    def _allowed_addresses(self, name: str) -> list[str]:
        try:
            found = socket.getaddrinfo(name.strip("[]"), self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, socket.gaierror(str(error))) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if (address, self.port) != self.opening and not is_public(address):
                raise NotAllowed(f"{name} leads to {address}, which is not a public address.")
        return addresses

    def connect(self) -> None:
        super().connect()
        self._register()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._register()  # a kept connection does not connect again
        super().request(*args, **kwargs)

    def _register(self) -> None:
        deadline = getattr(_running, "deadline", None)
        if deadline and self.sock is not None:
            deadline.sock = self.sock
            if deadline.passed:  # while it connected, when there was nothing to cut
                deadline._cut()


def _guard(
    pool: type[HTTPConnectionPool], opening: tuple[str, int] | None
) -> type[HTTPConnectionPool]:
    connection = type("Guarded", (_Guarded, pool.ConnectionCls), {"opening": opening})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, opening: tuple[str, int] | None) -> None:
        self.opening = opening
        super().__init__(pool_connections=64, pool_maxsize=16, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _guard(HTTPConnectionPool, self.opening),
            "https": _guard(HTTPSConnectionPool, self.opening),
        }

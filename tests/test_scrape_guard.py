"""Nobody but public servers is connected to; tested with real sockets and a second look-up."""

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
import requests
from hostile import Trap
from hypothesis import given
from hypothesis import strategies as st

from dclib.scrape.gallery import Gallery
from dclib.scrape.guard import Deadline, NotAllowed, check_url, guarded_session, is_public

PRIVATE = "127.0.0.1 10.0.0.1 172.16.0.1 192.168.0.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 "
PRIVATE += "255.255.255.255 192.0.2.1 ::1 :: fe80::1 fc00::1 ff02::1 2001:db8::1 "
PRIVATE += "::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: ::7f00:1"


def test_private_and_public_addresses():
    assert not [address for address in PRIVATE.split() if is_public(address)]
    assert all(map(is_public, ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "8.8.8.8"]))


@given(st.ip_addresses(v=4))
def test_no_dress_of_an_address_changes_the_verdict(ip):
    """Mapped into version 6 the verdict stays; inside a tunnel it is always no."""
    assert is_public(f"::ffff:{ip}") == is_public(str(ip))
    assert not is_public(str(ipaddress.IPv6Address((0x64FF9B << 96) + int(ip))))
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) + (int(ip) << 80))))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0.0.0.0", "127.1"])
def test_the_session_does_not_connect_to_this_computer(host):
    with Trap() as trap, pytest.raises(NotAllowed, match="not a public address"):
        guarded_session().get(f"http://{host}:{trap.port}/", timeout=5)
    assert trap.connections == 0


def test_a_name_that_changes_its_mind(monkeypatch):
    """DNS rebinding: public when asked first, private when asked again. It is asked once."""
    answers = iter(["198.51.100.7", "127.0.0.1", "127.0.0.1"])
    real = socket.getaddrinfo

    def look_up(host, port, *args, **kwargs):
        address = next(answers) if host == "evil.test" else host
        return real(address, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("dclib.scrape.guard.is_public", lambda ip: ip == "198.51.100.7")
    with Trap() as trap:
        with pytest.raises((requests.ConnectionError, NotAllowed)):
            guarded_session().get(f"http://evil.test:{trap.port}/", timeout=0.5)
        assert trap.connections == 0
        assert next(answers) == "127.0.0.1"  # the second answer was never fetched


def test_one_private_answer_among_public_ones_is_enough(monkeypatch):
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*kind, (address, 80)) for address in ("1.1.1.1", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: found)
    with pytest.raises(NotAllowed, match=r"10\.0\.0\.1"):
        guarded_session().get("http://mixed.test/", timeout=1)


def test_the_peer_is_checked_after_the_connection_too(monkeypatch):
    """Should the address have passed: what answers is looked at before a byte is sent."""
    verdicts = iter([True, False])
    monkeypatch.setattr("dclib.scrape.guard.is_public", lambda ip: next(verdicts))
    with Gallery(n=2) as site, pytest.raises(NotAllowed, match="turned out to be"):
        guarded_session().get(site.url, timeout=5)
    assert not site.asked


def test_a_name_that_no_look_up_takes():
    with pytest.raises(requests.ConnectionError, match="too long"):
        guarded_session().get(f"http://{'a' * 70}.test/", timeout=5)


def test_the_one_opening():
    with Gallery(n=2) as site, Gallery(n=2) as other:
        session = guarded_session(site.opening)
        assert session.get(f"{site.url}/robots.txt", timeout=5).ok
        with pytest.raises(NotAllowed):
            session.get(other.url, timeout=5)
        check_url(site.url, site.opening)
        with pytest.raises(NotAllowed, match="not the port"):
            check_url(other.url, site.opening)
    assert not other.asked


BAD = "ftp://a.org/ file:///etc/passwd data:text/plain,a javascript:alert(1) http:// //a.org/ a.jpg"
BAD += " http://me@a.org/ http://me:secret@a.org/ http://a.org:22/ https://a.org:80/ http://[::1"
BAD += " http://a.org:99999/"


def test_bad_urls():
    for url in BAD.split():
        with pytest.raises(NotAllowed):
            check_url(url)


@given(st.text())
def test_any_text_is_a_url_or_not_allowed(text):
    try:
        check_url(text)
    except NotAllowed as error:
        assert str(error).endswith(".")


def test_environment_proxies_and_cookies_are_ignored(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Gallery(n=2) as site:
        assert guarded_session(site.opening).get(f"{site.url}/robots.txt", timeout=5).ok


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls_is_verified(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], capture_output=True, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Gallery(n=2) as site:
        server = site._server
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with pytest.raises(requests.exceptions.SSLError):
            url = site.url.replace("http:", "https:")
            guarded_session(site.opening).get(f"{url}/robots.txt", timeout=5)
    assert not site.asked


class Slow(Gallery):
    """Answers at /slow only once `released` is set."""

    def __init__(self):
        super().__init__(n=2)
        self.released = threading.Event()

    def answer(self, handler, path, query):
        if path == "/slow":
            self.released.wait(20)
        super().answer(handler, path, query)


@pytest.mark.parametrize("kept_alive", [False, True])
def test_a_deadline_cuts_new_and_kept_connections(kept_alive):
    with Slow() as site:
        session = guarded_session(site.opening)
        if kept_alive:
            session.get(f"{site.url}/robots.txt", timeout=5)
        with Deadline(0.3) as deadline, pytest.raises(requests.ConnectionError):
            session.get(f"{site.url}/slow", timeout=15)
        site.released.set()
    assert deadline.passed


def test_a_deadline_that_passes_while_it_connects_cuts_at_once(monkeypatch):
    real = socket.getaddrinfo

    def look_up(*args, **kwargs):
        time.sleep(0.6)
        return real(*args, **kwargs)

    with Slow() as site:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        with Deadline(0.3) as deadline, pytest.raises(requests.ConnectionError):
            guarded_session(site.opening).get(f"{site.url}/slow", timeout=15)
        site.released.set()
    assert deadline.passed


def test_a_deadline_that_was_kept_leaves_the_connection_alone():
    with Gallery(n=2) as site:
        session = guarded_session(site.opening)
        with Deadline(10) as deadline:
            session.get(f"{site.url}/robots.txt", timeout=5)
        deadline._timer.join(5)
        assert not deadline._timer.is_alive()
        assert session.get(f"{site.url}/robots.txt", timeout=5).ok
    assert not deadline.passed

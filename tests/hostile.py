"""A server that does what real ones do to robots, by mistake or on purpose; for tests only."""

import gzip
import json
import socket
import struct
import threading
import time
import zlib

import numpy as np
from gathering import Listed
from PIL import Image

from dclib.drawn.drawing import draw_scene
from dclib.drawn.scenes import sample_scene
from dclib.pictures import encode
from dclib.scrape.gallery import Gallery
from dclib.scrape.sources import Candidate

MIB = 2**20


def picture(number=1000, side=300):
    return draw_scene(sample_scene(77, number)[0], side)


_numbers = iter(range(0, 10_000, 2))


def jpeg(**options):
    """A file that no other case has: never a duplicate."""
    return encode(picture(next(_numbers)), **options)


def send(body=None, kind="image/jpeg", status=200, headers=()):
    body = jpeg() if body is None else body
    return lambda handler: handler.send(body, kind, status, headers)


def raw(*pieces, pause=0.0):
    """Bytes on the line as they are, then the connection is closed."""

    def respond(handler):
        handler.close_connection = True
        try:
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(pause)
        except OSError:
            pass  # the scraper has hung up, as it should

    return respond


def first(respond_first, then):
    """One answer to the first request, another one from then on."""
    asked = []

    def respond(handler):
        asked.append(1)
        (respond_first if len(asked) == 1 else then)(handler)

    return respond


def busy(status, retry_after):
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return first(send(b"later", "text/plain", status, headers), send())


def redirect(target, status=302):
    return send(b"", "text/plain", status, {"Location": target})


def reset(handler):
    handler.connection.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: close with RST
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nabc")
    handler.wfile.flush()
    handler.connection.close()


def pixel_bomb(side=30_000):
    """A PNG of a few hundred kB whose header promises 900 million pixels."""

    def chunk(kind, data):
        end = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + end

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(side // 8 + 1) * 3000, 9)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def animation(kind, **options):
    frames = [picture(n) for n in (9001, 9003)]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def sixteen_bits():
    grey = np.asarray(picture(next(_numbers)).convert("L")).astype(np.uint16) * 257
    return encode(Image.fromarray(grey), "PNG")


def turned():
    """Lies on its side, says so in EXIF, and carries a place."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    image = picture(next(_numbers)).crop((0, 0, 300, 220))
    return encode(image, "JPEG", exif=exif.tobytes())


def marked(value):
    """Whose own metadata says whether one may train with it."""
    uri = f"http://ns.useplus.org/ldf/vocab/DMI-{value}"
    return jpeg(xmp=f'<rdf:Description plus:DataMining="{uri}"/>'.encode())


GONE = jpeg()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
CHECK = b"<!DOCTYPE html><title>Just a moment...</title><meta name=robots content=noindex>"
NOINDEX = {"X-Robots-Tag": "noindex, nofollow"}
TAG_BEFORE_A_DATE = {"X-Robots-Tag": "noai, unavailable_after: 25 Jun 2010 15:00:00 PST"}
TWO_TAGS = b"X-Robots-Tag: otherbot: all\r\nX-Robots-Tag: noai\r\n\r\n"
USAGE = {"Content-Usage": "search=y, train-ai=n"}
SIGNAL = {"Content-Signal": "search=yes,ai-train=no"}
HTML = b"<html><body>Please log in.</body></html>"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"100000\r\n" + bytes(MIB) + b"\r\n"
GZIP = {"Content-Encoding": "gzip"}
BOMB = gzip.compress(bytes(50 * MIB), 9)

# name -> (answer of the server, reason in the manifest; "" is kept)
ANSWERS = {
    "fine": (send(), ""),
    "lying type": (send(kind="text/html"), ""),
    "png called jpeg": (send(encode(picture(5000), "PNG")), ""),
    "webp": (send(encode(picture(5002), "WEBP"), "image/webp"), ""),
    "grey": (send(encode(picture(5004).convert("L"))), ""),
    "cmyk": (send(encode(picture(5006).convert("CMYK"))), ""),
    "16 bits": (send(sixteen_bits(), "image/png"), ""),
    "palette with alpha": (send(encode(picture(5008).convert("P"), "PNG", transparency=0)), ""),
    "on its side, with a place": (send(turned()), ""),
    "script behind the picture": (send(jpeg() + b"<script>alert(1)</script>"), ""),
    "cookie": (send(headers={"Set-Cookie": "id=1; Path=/"}), ""),
    "gzip though not asked": (send(gzip.compress(jpeg()), headers=GZIP), ""),
    "redirect to itself elsewhere": (redirect("/media/1.jpg", 301), ""),
    "429, then fine": (busy(429, None), ""),
    "503, Retry-After 0": (busy(503, "0"), ""),
    "429, Retry-After nonsense": (busy(429, "soon"), ""),
    "429, Retry-After negative": (busy(429, "-1"), ""),
    "503, Retry-After in the past": (busy(503, "Wed, 21 Oct 2015 07:28:00 GMT"), ""),
    "line broken once": (first(reset, send()), ""),
    "otherbot: noai": (send(headers={"X-Robots-Tag": "otherbot: noai, noindex"}), ""),
    "tag that allows": (send(headers={"X-Robots-Tag": "all, max-image-preview: large"}), ""),
    "Content-Usage: train-ai=y": (send(headers={"Content-Usage": "train-ai=y"}), ""),
    "training allowed by XMP": (send(marked("ALLOWED")), ""),
    "404": (send(b"no", "text/plain", 404), "http 404"),
    "403": (send(b"no", "text/plain", 403), "http 403"),
    "410": (send(b"no", "text/plain", 410), "http 410"),
    "202, a challenge": (send(CHECK, "text/html", 202), "http 202"),
    "405, a challenge": (send(CHECK, "text/html", 405), "http 405"),
    "204": (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), "http 204"),
    "206": (send(status=206), "http 206"),
    "302 to nowhere": (send(b"", "text/plain", 302), "http 302"),
    "503 for ever": (send(b"no", "text/plain", 503), "http 503"),
    "reset in the middle": (reset, "connection"),
    "shorter than announced": (raw(OK + b"Content-Length: 99\r\n\r\n\xff\xd8"), "connection"),
    "chunks without an end": (raw(CHUNKED, b"4\r\n\xff\xd8\xff\xe0\r\n"), "connection"),
    "chunks of nonsense": (raw(CHUNKED, b"zz\r\nabc\r\n"), "connection"),
    "hangs up at once": (raw(b""), "connection"),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "connection"),
    "header of 100 kB": (raw(OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n"), "connection"),
    "1000 headers": (raw(OK + b"X: a\r\n" * 1000 + b"\r\n"), "connection"),
    "body drips": (raw(OK + b"Content-Length: 99\r\n\r\n", *[b"a"] * 99, pause=0.1), "too slow"),
    "body drips, no length": (raw(OK + b"\r\n", *[b"a"] * 99, pause=0.1), "too slow"),
    "header drips": (raw(OK + b"X: ", *[b"a"] * 99, pause=0.1), "too slow"),
    "status drips": (raw(*[b"H"] * 99, pause=0.1), "too slow"),
    "endless": (raw(OK + b"\r\n", *[bytes(MIB)] * 200), "too many bytes"),
    "endless chunks": (raw(CHUNKED, *[CHUNK] * 200), "too many bytes"),
    "10 GB announced": (raw(OK + b"Content-Length: 10000000000\r\n\r\n"), "too many bytes"),
    "gzip bomb": (send(BOMB, headers=GZIP), "too many bytes"),
    "gzip in gzip": (send(headers={"Content-Encoding": "gzip, gzip"}), "encoding"),
    "brotli": (send(headers={"Content-Encoding": "br"}), "encoding"),
    "gzip that is none": (send(b"abc", headers=GZIP), "cut off"),
    "gzip cut off": (send(BOMB[:999], headers=GZIP), "cut off"),
    "bot check": (send(CHECK, "text/html"), "not a picture"),
    "bot check, not to be indexed": (send(CHECK, "text/html", 200, NOINDEX), "not a picture"),
    "login page": (send(HTML, "text/html"), "not a picture"),
    "login page called jpeg": (send(HTML), "not a picture"),
    "json": (send(json.dumps({"error": 1}).encode()), "not a picture"),
    "empty": (send(b""), "not a picture"),
    "svg with script": (send(b"<svg><script/></svg>", "image/svg+xml"), "not a picture"),
    "pdf": (send(b"%PDF-1.7 ..."), "not a picture"),
    "eps": (send(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "not a picture"),
    "gif": (send(encode(picture(5010), "GIF"), "image/gif"), "not a picture"),
    "tiff": (send(encode(picture(5012), "TIFF")), "not a picture"),
    "heic": (send(b"\0\0\0\x18ftypheic\0\0\0\0"), "not a picture"),
    "zip": (send(b"PK\x03\x04" + bytes(99)), "not a picture"),
    "animated webp": (send(animation("WEBP")), "animated"),
    "animated png": (send(animation("PNG")), "animated"),
    "half a jpeg": (send(jpeg()[:4000]), "damaged or too large"),
    "jpeg header only": (send(b"\xff\xd8\xff\xe0" + bytes(50)), "damaged or too large"),
    "half a png": (send(encode(picture(5014), "PNG")[:4000]), "damaged or too large"),
    "pixel bomb": (send(pixel_bomb(), "image/png"), "damaged or too large"),
    "1 pixel": (send(encode(Image.new("RGB", (1, 1)))), "too small"),
    "thumbnail": (send(encode(picture(5016, 150))), "too small"),
    "banner": (send(encode(picture(5018).resize((900, 210)))), "too long"),
    "one colour": (send(encode(Image.new("RGB", (300, 300), "navy"))), "nothing in it"),
    "no longer available": (send(GONE), "one file, several pages"),
    "no longer available either": (redirect("/hostile/gone.jpg"), "one file, several pages"),
    "redirect loop": (redirect("?"), "redirects"),
    "to the metadata service": (redirect("http://169.254.169.254/latest"), "address not allowed"),
    "to a file": (redirect("file:///etc/passwd"), "address not allowed"),
    "to ftp": (redirect("ftp://127.0.0.1/a.jpg"), "address not allowed"),
    "to a router": (redirect("http://192.168.1.1/a.jpg"), "address not allowed"),
    "to a password": (redirect("http://me:secret@127.0.0.1/a.jpg"), "address not allowed"),
    "to nonsense": (redirect("http://[::1/a.jpg"), "address not allowed"),
    "to a closed path": (redirect("/private/a.jpg"), "robots.txt"),
    "noai": (send(headers={"X-Robots-Tag": "noai"}), "opt-out"),
    "NOIMAGEAI": (send(headers={"X-Robots-Tag": "NOIMAGEAI"}), "opt-out"),
    "noml": (send(headers={"X-Robots-Tag": "noml"}), "opt-out"),
    "noindex for us": (send(headers={"X-Robots-Tag": "dclib: noindex"}), "opt-out"),
    "noai before a date": (send(headers=TAG_BEFORE_A_DATE), "opt-out"),
    "noai;noimageai": (send(headers={"X-Robots-Tag": "noai;noimageai"}), "opt-out"),
    "no-ai": (send(headers={"X-Robots-Tag": "index, no-ai"}), "opt-out"),
    "second line refuses": (raw(OK + TWO_TAGS + jpeg()), "opt-out"),
    "TDM reserved": (send(headers={"TDM-Reservation": "1"}), "opt-out"),
    "TDM reserved, in words": (send(headers={"TDM-Reservation": "true"}), "opt-out"),
    "TDM policy": (send(headers={"TDM-Policy": "https://h.org/policy.json"}), "opt-out"),
    "TDM by file": (send(), "opt-out"),
    "Content-Usage: train-ai=n": (send(headers=USAGE), "opt-out"),
    "Content-Usage by file": (send(), "opt-out"),
    "Content-Signal: ai-train=no": (send(headers=SIGNAL), "opt-out"),
    "Content-Signal by file": (send(), "opt-out"),
    "training prohibited by XMP": (send(marked("PROHIBITED-AIMLTRAINING")), "opt-out"),
    "closed, its path escaped": (send(), "robots.txt"),
    "closed, behind two slashes": (send(), "robots.txt"),
    "closed, behind dots": (send(), "robots.txt"),
    "closed, with backslashes": (send(), "robots.txt"),
    "closed to us beside others": (send(), "robots.txt"),
}
PATHS = {"TDM by file": "/reserved/a.jpg", "Content-Usage by file": "/untrained/a.jpg"}
PATHS |= {"Content-Signal by file": "/signal/a.jpg"}
PATHS |= {"closed, its path escaped": "/%70riv%61te/b.jpg"}
PATHS |= {"closed, behind two slashes": "//private/c.jpg"}
PATHS |= {"closed, behind dots": "/hostile/%2e%2E/private/d.jpg"}
PATHS |= {"closed, with backslashes": "/hostile\\..\\private\\e.jpg"}
PATHS |= {"closed to us beside others": "/closed/f.jpg"}
PATHS |= {"no longer available": "/hostile/gone.jpg"}
PATHS |= {"fine": "/hostile/..%2F..%2Fetc%2F" + "x" * 4000 + ".jpg"}
PATHS |= {"grey": "/hostile/%F0%9F%92%94"}
# URLs that must not be asked at all; {trap} is a second local server, {port} the allowed port.
ADDRESSES = {
    "localhost": "http://localhost:{trap}/",
    "loopback": "http://127.0.0.1:{trap}/",
    "loopback as a number": "http://2130706433/",
    "loopback as zeros": "http://0.0.0.0/",
    "loopback in version 6": "http://[::1]/",
    "loopback mapped": "http://[::ffff:127.0.0.1]/",
    "loopback in NAT64": "http://[64:ff9b::7f00:1]/",
    "loopback in 6to4": "http://[2002:7f00:1::]/",
    "metadata service": "http://169.254.169.254/latest/meta-data/",
    "shared": "http://100.64.0.1/a.jpg",
    "another port": "http://93.184.216.34:8080/a.jpg",
    "user name": "http://me@127.0.0.1:{port}/media/1.jpg",
    "no host": "http:///a.jpg",
}
ROBOTS = b"""\xef\xbb\xbfUser-agent: dclib/0.1\r\nCrawl-delay: abc\r\nUser-agent: otherbot\r\n
Disallow: /private/\r\nContent-Usage: /untrained/ train-ai=n\r\nSitemap: nonsense\r\n\xff\xfe\r\n
Content-Signal: /signal/ search=yes,ai-train=no\r\nUser-agent: *\r\nAllow: /\r\n
User-agent: dclib bot\r\nNoindex: /x\r\nUser-agent: another\r\nDisallow: /closed/\r\n"""
TDMREP = b'[{"location": "/reserved/*", "tdm-reservation": 1}, 7, {"location": 3}]'


class Hostile(Gallery):
    """A gallery with one path for every case of `ANSWERS`."""

    def __init__(self):
        super().__init__(n=4)
        self.cases = {PATHS.get(name, f"/hostile/{i}.jpg"): name for i, name in enumerate(ANSWERS)}
        self.cookies = []

    def answer(self, handler, path, query):
        self.cookies.append(handler.headers.get("Cookie"))
        if path in self.cases:
            ANSWERS[self.cases[path]][0](handler)
        elif path == "/robots.txt":
            handler.send(ROBOTS, "text/plain; charset=utf-16")
        elif path == "/.well-known/tdmrep.json":
            handler.send(TDMREP, "text/plain")
        else:
            super().answer(handler, path, query)


def catalogue(site, trap_port):
    """A source that offers one picture for every case."""
    urls = {name: site.url + path for path, name in site.cases.items()}
    for name, url in ADDRESSES.items():
        urls[name] = url.format(trap=trap_port, port=site.opening[1])
    page = f"{site.url}/photo/{{}}".format
    cases = enumerate(urls.items())
    offered = [Candidate(url, page(i), title=name, licence="by") for i, (name, url) in cases]
    return Listed(site, {"all": offered}, "catalogue")


class Trap:
    """A listening port that nobody should ever connect to."""

    def __enter__(self):
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._count, daemon=True).start()
        return self

    def _count(self):
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.connections += 1

    def __exit__(self, *exception):
        self._socket.close()

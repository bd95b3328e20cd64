"""No to training: in headers, in the pages' metas (test_scrape_html.py), in pictures themselves."""

import io
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from urllib3 import HTTPHeaderDict

from dclib.pictures import encode
from dclib.scrape.optouts import header_optout, picture_optout, reserved_locations

TAG = "X-Robots-Tag"


# A header a line: its name, then values, with " / " between lines of one header.
REFUSED = """
X-Robots-Tag ~ noai ~ index, NOIMAGEAI ~ otherbot: noai, dclib: noindex ~ dclib: none ~ *: noai
X-Robots-Tag ~ dclib/0.1: none ~ robots: noai ~ otherbot: all / noml ~ DisallowAITraining ~ no-ai
X-Robots-Tag ~ noai, unavailable_after: 25 Jun 2010 15:00:00 PST ~ max-image-preview: x, noindex
X-Robots-Tag ~ unavailable_after: 25 Jun 2010 15:00:00 PST, noai ~ noai; noimageai ~ noai;noimageai
X-Robots-Tag ~ index;noai ~ index|noai ~ "noai" ~ No Image-AI ~ noai: true ~ noai=1 ~ no_ai_training
X-Robots-Tag ~ max-snippet:-1; rating: general,noai
tdm-reservation ~ 1
TDM-Reservation ~  1  ~ "1" ~ true ~ 0, 1
tdm-policy ~ https://a.org/policy.json
Content-Usage ~ train-ai=n ~ search=y, train-ai = n;a=1 ~ train-ai=y / Train-AI: NO ~ train-ai=?0
Content-Usage ~ tdm=n
Content-Signal ~ search=yes,ai-train=no ~ ai_training = 'false'
"""
ALLOWED = """
X-Robots-Tag ~ all ~ nofollow, nosnippet ~ otherbot: noai ~ otherbot: noai, noindex ~ noaim ~
X-Robots-Tag ~ max-snippet:-1, otherbot: noai ~ max-image-preview: none
tdm-reservation ~ 0 ~ false
Content-Usage ~ train-ai=y ~ train-ai
Content-Signal ~ ai-train=yes, ai-input=no
X-Other ~ noai
"""


@pytest.mark.parametrize("refused", [True, False])
def test_headers(refused):
    for row in (REFUSED if refused else ALLOWED).strip().splitlines():
        name, *values = row.split(" ~ ")
        for value in values:
            headers = HTTPHeaderDict()
            for line in value.split(" / "):
                headers.add(name, line)
            assert bool(header_optout(headers)) == refused, (name, value)


def test_a_policy_of_what_is_not_reserved():
    assert not header_optout(HTTPHeaderDict({"TDM-Reservation": "0", "TDM-Policy": "/p.json"}))


@given(st.text(), st.sampled_from([TAG, "Content-Usage", "tdm-reservation"]))
def test_no_text_breaks_the_readers(text, name):
    header_optout(HTTPHeaderDict({name: text}))
    reserved_locations(text.encode("utf-8", "replace"))


# ---- In the picture. Values: IPTC Photo Metadata Standard 2023.1, from the PLUS vocabulary


VOCABULARY = "http://ns.useplus.org/ldf/vocab/DMI-"
NO = f"{VOCABULARY}PROHIBITED-AIMLTRAINING"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
    'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" {}/></rdf:RDF></x:xmpmeta>'
)
PROPERTIES = [
    (f'plus:DataMining="{NO}"', True),
    (f"p:DataMining='{VOCABULARY}PROHIBITED'", True),
    (f'plus:DataMining="{VOCABULARY}PROHIBITED-GENAIMLTRAINING"', True),
    (f'plus:DataMining="{VOCABULARY}PROHIBITED-EXCEPTSEARCHENGINEINDEXING"', True),
    (f'plus:DataMining="{VOCABULARY}PROHIBITED-SEECONSTRAINT"', True),
    (f"><plus:DataMining>{NO}</plus:DataMining><a", True),
    (f'><plus:DataMining rdf:resource="{NO}"/><a', True),
    ("><plus:DataMining>Prohibited for AI/ML training</plus:DataMining><a", True),
    ('Iptc4xmpExt:DMI-Prohibited="True"', True),  # before PLUS had a property
    ('tdm:reservation="1"', True),
    ("><tdm:reservation>1</tdm:reservation><a", True),
    (f'plus:DataMining="{VOCABULARY}ALLOWED"', False),
    (f'plus:DataMining="{VOCABULARY}UNSPECIFIED"', False),
    ('tdm:reservation="0"', False),
    ('dc:title="A reservation for two"', False),
]


def noise(kind, **options):
    return encode(Image.effect_noise((64, 64), 50).convert("RGB"), kind, **options)


def png(write):
    """A PNG with what `write` adds to its texts."""
    info = PngImagePlugin.PngInfo()
    write(info)
    return noise("PNG", pnginfo=info)


def before_the_end(content, kind, data):
    """A PNG with one more chunk behind its pixels."""
    chunk = len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)
    return content[:-12] + chunk + content[-12:]


HEX = "\nxmp\n    {}\n{}\n"
WAYS = {
    "jpeg": lambda xmp: noise("JPEG", xmp=xmp.encode()),
    "jpeg, extended": lambda xmp: noise("JPEG", xmp=(" " * 60_000 + xmp).encode()),
    "jpeg, utf-16": lambda xmp: noise("JPEG", xmp=xmp.encode("utf-16")),
    "webp": lambda xmp: noise("WEBP", xmp=xmp.encode()),
    "png": lambda xmp: png(lambda info: info.add_itxt("XML:com.adobe.xmp", xmp)),
    "png, packed": lambda xmp: png(lambda info: info.add_itxt("XML:com.adobe.xmp", xmp, zip=True)),
    "png, at its end": lambda xmp: before_the_end(
        noise("PNG"), b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp.encode())
    ),
    "png, hexadecimal": lambda xmp: png(
        lambda info: info.add_text(
            "Raw profile type xmp", HEX.format(len(xmp), xmp.encode().hex()), zip=True
        )
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("properties", "refused"), PROPERTIES)
def test_metadata_of_a_picture(way, properties, refused):
    content = WAYS[way](XMP.format(properties))
    Image.open(io.BytesIO(content)).load()
    assert bool(picture_optout(content)) == refused


@pytest.mark.parametrize(
    ("use", "refused"), [("notAllowed", 1), ("constrained", 1), ("allowed", 0)]
)
@pytest.mark.parametrize("label", ["cawg.training-mining", "c2pa.training-mining"])
def test_content_credentials(label, use, refused):
    """CBOR holds texts as they are, after a byte for kind and length."""
    entry = b"\xa1gentries\xa1pcawg.ai_training\xa1cuse" + bytes([0x60 + len(use)]) + use.encode()
    box = b"jumb\0jumd\0\x11\0\x10" + label.encode() + b"\0\0\0\0\xffcbor" + entry
    segment = b"\xff\xeb" + (len(box) + 2).to_bytes(2) + box
    content = noise("JPEG")
    content = content[:2] + segment + content[2:]
    Image.open(io.BytesIO(content)).load()
    assert bool(picture_optout(content)) == bool(refused)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_without_a_mark(kind):
    assert picture_optout(noise(kind)) == ""


@given(st.binary(max_size=200))
def test_any_bytes_can_be_searched(data):
    packed = before_the_end(noise("PNG"), b"iTXt", data)
    for content in (data, b"\x89PNG\r\n\x1a\n" + data, packed):
        picture_optout(content)


def test_texts_that_unpack_without_end_take_no_time():
    bomb = b"a\0\0" + zlib.compress(bytes(50_000_000), 9)
    content = noise("PNG")
    for _ in range(100):
        content = before_the_end(content, b"zTXt", bomb)
    assert picture_optout(content) == ""

"""Uploads that are not what they should be, from a seed: damaged, explosive, of other types, wrongly framed."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

SEED = 20_2611
ROUND = 500

MEBIBYTE = 1024 * 1024

Encode = Callable[..., bytes]


@dataclass(frozen=True)
class Upload:
    """Bytes to send.

    `may_be_good` where the damage can leave a readable image; `framing` where HTTP itself is broken, so that
    the connection may end without an answer; `half_close` where the server would wait for more.
    """

    kind: str
    request: bytes
    may_be_good: bool = False
    framing: bool = False
    half_close: bool = False


def part(content: bytes, disposition: bytes = b'form-data; name="photos"; filename="p"') -> bytes:
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\nContent-Type: image/jpeg\r\n\r\n" + content + b"\r\n"


def request(body: bytes, *extra: bytes, length: int | None = None) -> bytes:
    head = [
        b"POST /v1/identifications HTTP/1.1",
        b"Host: localhost",
        b"Connection: close",
        b"Content-Type: multipart/form-data; boundary=b",
        *(extra or (b"Content-Length: %d" % (len(body) if length is None else length),)),
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def form(*photos: bytes) -> bytes:
    return request(b"".join(map(part, photos)) + b"--b--\r\n")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(entries: dict[int, tuple[int, int]]) -> bytes:
    """Little-endian TIFF whose one directory, a tag's type and value each, names itself as the next."""
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items()))
    return b"II*\x00" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", 8)


def flat_png(side: int) -> bytes:
    """A valid image of `side` × `side` one-bit pixels in a few kilobytes."""
    row = b"\x00" + bytes(side // 8)
    return png(side, side, chunk(b"IDAT", zlib.compress(row * side, 9)), bits=1, colour=0)


def text_bomb(kind: bytes) -> bytes:
    zeros = zlib.compress(bytes(30 * MEBIBYTE), 9)
    content = b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zeros if kind == b"iTXt" else b"Comment\x00\x00" + zeros
    idat = chunk(b"IDAT", zlib.compress((b"\x00" + bytes(3 * 16)) * 16))
    return png(16, 16, *[chunk(kind, content)] * 20, idat)


def bombs(encode: Encode) -> list[tuple[bytes, bool]]:
    """Images that claim or unpack to far more than they weigh; and whether an answer is right too."""
    jpeg = bytearray(encode(1))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    webp = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\xff" * 2
    idat = chunk(b"IDAT", zlib.compress(bytes(4 * MEBIBYTE), 9))
    plain = {256: (4, 64), 257: (4, 64), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8), 278: (4, 64)}
    return [
        (png(60_000, 60_000, idat), False),
        (png(2**31 - 1, 2**31 - 1, idat), False),
        (png(0, 10, idat), False),
        (flat_png(8_000), False),
        (flat_png(6_400), True),
        (text_bomb(b"iTXt"), True),
        (text_bomb(b"zTXt"), True),
        (png(16, 16, chunk(b"iCCP", b"p\x00\x00" + zlib.compress(bytes(30 * MEBIBYTE), 9)), idat), True),
        (bytes(jpeg), False),
        (b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp, False),
        (tiff(plain | {256: (4, 100_000), 257: (4, 100_000)}), False),
        (tiff(plain | {279: (4, 2**32 - 1)}), True),
        (tiff(plain | {322: (4, 2**31), 323: (4, 2**31), 324: (4, 8)}), True),
        (tiff(plain | {259: (3, 7)}), False),
        (b"II*\x00" + struct.pack("<I", 8) + b"\xff\xff" * 40, False),
    ]


def damaged(good: list[bytes], generator: random.Random) -> Iterator[Upload]:
    """Truncations and bit flips of the four formats."""
    for n in range(100):
        content = good[n % len(good)]
        yield Upload("truncated", form(content[: generator.randrange(1, len(content))]), may_be_good=True)
    for n in range(100):
        content = bytearray(good[n % len(good)])
        reach = len(content) if n % 2 else min(200, len(content))
        for _ in range(generator.choice((1, 3, 30))):
            content[generator.randrange(reach)] ^= 1 << generator.randrange(8)
        yield Upload("bit flips", form(bytes(content)), may_be_good=True)


def of_other_types(good: list[bytes], generator: random.Random) -> Iterator[Upload]:
    """What is no JPEG, PNG, WebP or TIFF, alone or behind a good photo."""
    gif, bmp, noise = io.BytesIO(), io.BytesIO(), generator.randbytes(5_000)
    Image.new("RGB", (20, 20)).save(gif, "GIF")
    Image.new("RGB", (20, 20)).save(bmp, "BMP")
    others = [
        *(
            gif.getvalue(),
            bmp.getvalue(),
            b"",
            b"\x00",
            noise,
            good[0][:3],
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\x00\x00\x00\x00WEBP",
        ),
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        b"<!doctype html><script>alert(1)</script>",
        b"PK\x03\x04" + noise,
        b"%PDF-1.7\n" + noise,
        b"\x1f\x8b" + noise,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    ]
    for n in range(72):
        content = others[n % len(others)]
        photos = ([content], [good[0], content], [content, good[1]])[n // len(others) % 3]
        yield Upload("wrong type", form(*photos))


def misframed(good: list[bytes], generator: random.Random) -> Iterator[Upload]:
    """Bodies whose parts, lengths or chunks do not fit together."""
    photo, end = good[0], b"--b--\r\n"
    for _ in range(8):
        whole = part(photo) + end
        cut = generator.randrange(1, len(whole) - 3)
        noise = generator.randbytes(generator.randrange(1, 3_000))
        yield Upload("form cut off", request(whole[:cut]))
        yield Upload("shorter than announced", request(whole[:cut], length=len(whole)), framing=True, half_close=True)
        yield Upload("longer than announced", request(whole, length=cut), framing=True)
        yield Upload("other boundary", request(whole.replace(b"--b", b"--c")))
        yield Upload("no name", request(part(photo, b"form-data") + end))
        yield Upload("odd name", request(part(photo, b'form-data; name="\x00\xff' + noise[:40]) + end), framing=True)
        yield Upload("long part head", request(part(photo, b'form-data; name="photos"; x="' + b"y" * 9_000) + end))
        yield Upload("many parts", request(part(photo) * generator.randrange(6, 12) + end))
        yield Upload("a thousand fields", request(part(b"1", b'form-data; name="organs"') * 1_000 + end))
        yield Upload("noise", request(noise))
        yield Upload("bare line feeds", request((part(b"x") + end).replace(b"\r\n", b"\n")))
        yield Upload("negative length", request(whole, b"Content-Length: -1"), framing=True)
        yield Upload("no chunk size", request(b"zz\r\n" + whole, b"Transfer-Encoding: chunked"), framing=True)
        yield Upload(
            "chunks cut off", request(b"ffff\r\n" + noise, b"Transfer-Encoding: chunked"), framing=True, half_close=True
        )
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(noise), noise) for _ in range(4)) + b"0\r\n\r\n"
        yield Upload("chunked noise", request(pieces, b"Transfer-Encoding: chunked"))


def malformed_uploads(encode: Encode, count: int, seed: int = SEED) -> list[Upload]:
    """`count` uploads, fixed by the seed; every five hundred hold all kinds."""
    rounds = [_five_hundred(encode, seed + number) for number in range(-(-count // ROUND))]
    return [upload for round_ in rounds for upload in round_][:count]


def _five_hundred(encode: Encode, seed: int) -> list[Upload]:
    generator = random.Random(seed)
    size = (160, 200)
    good = [encode(1, size=size), encode(2, "PNG", size), encode(3, "WEBP", size), encode(4, "TIFF", size)]
    good.append(encode(5, "TIFF", size, compression="tiff_lzw"))
    good.append(encode(6, "JPEG", size, progressive=True))
    uploads = [*damaged(good, generator), *of_other_types(good, generator), *misframed(good, generator)]
    explosive = [Upload("bomb", form(content), may_be_good) for content, may_be_good in bombs(encode)]
    uploads += [generator.choice(explosive) for _ in range(ROUND - len(uploads) - len(explosive))] + explosive
    generator.shuffle(uploads)
    return uploads

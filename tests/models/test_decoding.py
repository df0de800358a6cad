"""Decoding: every pixel mode comes out right, and no bytes whatever bring anything but our own errors."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from models.decoding import decode_image, upright_size
from models.errors import ImageTooLarge, InvalidImage, UnreadableImage
from models.metadata_removal import remove_metadata

WIDTH, HEIGHT = 24, 16


def gradient(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=2).astype(np.uint8))


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def grey_ramp(top: int, dtype: type) -> np.ndarray:
    return np.tile(np.linspace(0, top, WIDTH), (HEIGHT, 1)).astype(dtype)


EXPECTED_RAMP = np.tile(np.linspace(0, 255, WIDTH), (HEIGHT, 1))


def assert_grey_ramp(decoded: Image.Image, tolerance: float = 1.0) -> None:
    assert decoded.mode == "RGB"
    values = pixels(decoded)
    assert np.ptp(values, axis=2).max() == 0
    assert np.abs(values[:, :, 0] - EXPECTED_RAMP).max() <= tolerance


@pytest.mark.parametrize(
    ("format_name", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, 12),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 12),
    ],
)
def test_rgb_of_each_format_keeps_its_colours(format_name: str, options: dict, tolerance: int) -> None:
    decoded = decode_image(encoded(gradient(), format_name, **options))
    assert decoded.size == (WIDTH, HEIGHT)
    assert np.abs(pixels(decoded) - pixels(gradient())).max() <= tolerance


def test_file_and_bytes_decode_alike(tmp_path: Path) -> None:
    file = tmp_path / "Blüte 1.png"
    file.write_bytes(encoded(gradient(), "PNG"))
    assert decode_image(file).tobytes() == gradient().tobytes()


def test_result_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a meadow"
    decoded = decode_image(encoded(gradient(), "JPEG", exif=exif, comment=b"private"))
    assert decoded.info == {}
    assert dict(decoded.getexif()) == {}


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bit_greyscale_is_scaled(format_name: str) -> None:
    image = Image.fromarray(grey_ramp(65535, np.uint16))
    assert_grey_ramp(decode_image(encoded(image, format_name)))


def test_big_endian_16_bit_tiff_is_scaled() -> None:
    image = Image.frombytes("I;16B", (WIDTH, HEIGHT), grey_ramp(65535, np.dtype(">u2")).tobytes())
    assert_grey_ramp(decode_image(encoded(image, "TIFF")))


def test_16_bit_tiff_where_zero_is_white_is_inverted() -> None:
    image = Image.fromarray((65535 - grey_ramp(65535, np.uint16).astype(int)).astype(np.uint16))
    data = encoded(image, "TIFF", tiffinfo={262: 0})
    with Image.open(io.BytesIO(data)) as check:
        assert check.tag_v2[262] == 0
    assert_grey_ramp(decode_image(data))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_tiff_is_scaled_by_its_range(top: float) -> None:
    image = Image.fromarray(grey_ramp(1, np.float32) * np.float32(top))
    assert_grey_ramp(decode_image(encoded(image, "TIFF")))


def test_float_tiff_with_negative_values_and_nan_spans_black_to_white() -> None:
    values = np.tile(np.linspace(-3.0, 5.0, WIDTH), (HEIGHT, 1)).astype(np.float32)
    assert_grey_ramp(decode_image(encoded(Image.fromarray(values), "TIFF")))
    values[0, 0] = np.nan
    decoded = pixels(decode_image(encoded(Image.fromarray(values), "TIFF")))
    assert decoded[1, 0, 0] == 0
    assert decoded[1, -1, 0] == 255


@pytest.mark.parametrize("top", [255, 65535, 4_000_000])
def test_32_bit_integer_tiff_is_scaled_by_its_range(top: int) -> None:
    assert_grey_ramp(decode_image(encoded(Image.fromarray(grey_ramp(top, np.int32)), "TIFF")))


def test_constant_32_bit_tiff_is_black_not_an_error() -> None:
    constant = Image.fromarray(np.full((HEIGHT, WIDTH), -7, np.int32))
    assert pixels(decode_image(encoded(constant, "TIFF"))).max() == 0


def test_16_bit_rgb_png_keeps_its_high_byte() -> None:
    row = b"\0" + b"".join(struct.pack(">HHH", 65535, 32768, 257) for _ in range(WIDTH))
    decoded = decode_image(png_of(WIDTH, HEIGHT, 16, 2, row * HEIGHT))
    assert tuple(pixels(decoded)[0, 0]) == (255, 128, 1)


def test_transparent_value_of_16_bit_png_is_white() -> None:
    row = b"\0" + struct.pack(">H", 300) * WIDTH
    transparent = (b"tRNS", struct.pack(">H", 300))
    assert pixels(decode_image(png_of(WIDTH, HEIGHT, 16, 0, row * HEIGHT, transparent))).min() == 255
    assert pixels(decode_image(png_of(WIDTH, HEIGHT, 16, 0, row * HEIGHT))).max() == 1


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def png_of(width: int, height: int, bits: int, colour_type: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(format_name: str) -> None:
    image = gradient().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    options = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
    assert pixels(decode_image(encoded(image, format_name, **options))).min() == 255


def test_half_transparent_black_is_grey() -> None:
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 128))
    assert np.abs(pixels(decode_image(encoded(image, "PNG"))) - 127).max() <= 1


def test_grey_with_alpha_is_laid_over_white() -> None:
    image = Image.new("LA", (WIDTH, HEIGHT), (100, 0))
    image.paste((100, 255), (0, 0, 8, HEIGHT))
    values = pixels(decode_image(encoded(image, "PNG")))
    assert (values[:, :8] == 100).all()
    assert (values[:, 8:] == 255).all()


def test_palette_keeps_its_colours_and_its_transparency_is_white() -> None:
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([200, 10, 20, 0, 120, 30])
    image.paste(1, (0, 0, 8, HEIGHT))
    opaque = pixels(decode_image(encoded(image, "PNG")))
    assert tuple(opaque[0, 0]) == (0, 120, 30)
    assert tuple(opaque[0, -1]) == (200, 10, 20)
    for transparency in (0, b"\x00\xff"):
        through = pixels(decode_image(encoded(image, "PNG", transparency=transparency)))
        assert tuple(through[0, 0]) == (0, 120, 30)
        assert tuple(through[0, -1]) == (255, 255, 255)


def test_transparent_colour_of_rgb_and_grey_png_is_white() -> None:
    rgb = Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3))
    assert pixels(decode_image(encoded(rgb, "PNG", transparency=(1, 2, 3)))).min() == 255
    grey = Image.new("L", (WIDTH, HEIGHT), 9)
    assert pixels(decode_image(encoded(grey, "PNG", transparency=9))).min() == 255


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_one_bit_image_is_black_and_white(format_name: str) -> None:
    image = Image.new("1", (WIDTH, HEIGHT), 0)
    image.paste(1, (0, 0, 8, HEIGHT))
    values = pixels(decode_image(encoded(image, format_name)))
    assert (values[:, :8] == 255).all()
    assert (values[:, 8:] == 0).all()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF"])
def test_8_bit_greyscale(format_name: str) -> None:
    image = Image.fromarray(grey_ramp(255, np.uint8))
    assert_grey_ramp(decode_image(encoded(image, format_name)), tolerance=4)


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(format_name: str) -> None:
    red = Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0))
    values = pixels(decode_image(encoded(red, format_name)))
    assert np.abs(values - (255, 0, 0)).max() <= 4


def test_ycck_jpeg_with_adobe_marker_is_not_inverted() -> None:
    # Adobe's colour transform 2: the inks of red, (0, 255, 255), taken as RGB and turned into YCbCr.
    planes = Image.new("CMYK", (WIDTH, HEIGHT), (255 - 179, 255 - 171, 255 - 1, 0))
    data = encoded(planes, "JPEG", quality=95)
    at = data.index(b"Adobe")
    ycck = data[: at + 11] + b"\x02" + data[at + 12 :]
    assert np.abs(pixels(decode_image(ycck)) - (255, 0, 0)).max() <= 4


def test_lab_tiff_becomes_srgb() -> None:
    white = Image.new("LAB", (WIDTH, HEIGHT), (255, 128, 128))
    assert pixels(decode_image(encoded(white, "TIFF"))).min() >= 253
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    red = ImageCms.applyTransform(Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 40)), to_lab)
    assert np.abs(pixels(decode_image(encoded(red, "TIFF"))) - (200, 30, 40)).max() <= 4


def test_ycbcr_tiff_becomes_rgb() -> None:
    data = encoded(Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 40)).convert("YCbCr"), "TIFF")
    assert np.abs(pixels(decode_image(data)) - (200, 30, 40)).max() <= 3


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged: whoever applies it sees it."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", data, 128)[0]
    at = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "Test".encode("utf-16-be"))


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colour_profile_is_applied(format_name: str) -> None:
    red = Image.new("RGB", (WIDTH, HEIGHT), (250, 10, 10))
    options = {"lossless": True} if format_name == "WEBP" else {}
    values = pixels(decode_image(encoded(red, format_name, icc_profile=swapped_profile(), **options)))
    assert values[0, 0, 1] > 200
    assert values[0, 0, 0] < 60


def test_colour_profile_is_applied_below_transparency() -> None:
    red = Image.new("RGBA", (WIDTH, HEIGHT), (250, 10, 10, 255))
    values = pixels(decode_image(encoded(red, "PNG", icc_profile=swapped_profile())))
    assert values[0, 0, 1] > 200


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200, swapped_profile()[:300]])
def test_damaged_or_unfitting_profile_is_ignored(profile: bytes) -> None:
    data = encoded(gradient(), "PNG", icc_profile=profile)
    assert decode_image(data).tobytes() == gradient().tobytes()
    grey = encoded(Image.fromarray(grey_ramp(255, np.uint8)), "PNG", icc_profile=swapped_profile())
    assert_grey_ramp(decode_image(grey))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(format_name: str, orientation: int) -> None:
    upright = gradient()
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    turned = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format_name == "WEBP" else {}
    options |= {"quality": 98, "subsampling": 0} if format_name == "JPEG" else {}
    decoded = decode_image(encoded(turned, format_name, exif=exif, **options))
    assert decoded.size == (WIDTH, HEIGHT)
    assert np.abs(pixels(decoded) - pixels(upright)).max() <= (12 if format_name == "JPEG" else 0)


@pytest.mark.parametrize("style", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"])
def test_orientation_in_xmp_alone_is_applied(style: str) -> None:
    data = encoded(gradient(), "JPEG", xmp=f"<x:xmpmeta>{style}</x:xmpmeta>".encode())
    assert decode_image(data).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff\0\0", b"Exif\0\0junk" * 9])
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    assert decode_image(encoded(gradient(), "JPEG", exif=exif)).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("format_name", "extra"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_only_the_first_frame_is_read(format_name: str, extra: dict) -> None:
    second = Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3))
    data = encoded(gradient(), format_name, save_all=True, append_images=[second], **extra)
    assert np.array_equal(pixels(decode_image(data)), pixels(gradient()))


def test_jpeg_with_a_second_picture_behind_it_is_a_jpeg() -> None:
    second = Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3))
    data = encoded(gradient(), "MPO", save_all=True, append_images=[second])
    assert np.abs(pixels(decode_image(data)) - pixels(gradient())).mean() < 12


def test_stray_bytes_between_jpeg_segments_are_passed_over() -> None:
    data = encoded(gradient(), "JPEG")
    at = data.index(b"\xff\xdb")
    assert decode_image(data[:at] + b"\x12\xff\x00\x34\xff\xff" + data[at:]).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("minimum_side", "expected"), [(None, 800), (100, 100), (101, 200), (400, 400), (801, 800)])
def test_minimum_side_lets_a_jpeg_come_out_smaller(minimum_side: int | None, expected: int) -> None:
    data = encoded(gradient(1200, 800), "JPEG")
    assert min(decode_image(data, minimum_side=minimum_side).size) == expected


def test_minimum_side_leaves_a_png_alone() -> None:
    assert decode_image(encoded(gradient(), "PNG"), minimum_side=8).size == (WIDTH, HEIGHT)


def test_too_many_pixels_are_refused_before_decoding() -> None:
    data = encoded(gradient(), "PNG")
    assert decode_image(data, max_pixels=WIDTH * HEIGHT).size == (WIDTH, HEIGHT)
    with pytest.raises(ImageTooLarge, match=r"24 × 16 = 384 pixels, the limit is 383"):
        decode_image(data, max_pixels=WIDTH * HEIGHT - 1)


def huge_headers() -> dict[str, bytes]:
    jpeg = bytearray(encoded(gradient(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    webp = bytearray(encoded(gradient().convert("RGBA"), "WEBP", lossless=True, icc_profile=swapped_profile()))
    webp[24:30] = b"\xff\x3f\0\xff\x3f\0"
    return {
        "jpeg": bytes(jpeg),
        "png": png_of(60_000, 60_000, 1, 0, b"\0" * 100),
        "huge png": png_of(2**31 - 1, 2**31 - 1, 1, 0, b""),
        "webp": bytes(webp),
    }


@pytest.mark.parametrize("kind", ["jpeg", "png", "huge png", "webp"])
def test_decompression_bomb_is_refused_without_a_warning(kind: str) -> None:
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        with pytest.raises(InvalidImage):
            decode_image(huge_headers()[kind])
    assert raised == []


def test_sheet_scan_beyond_pillows_own_limit_opens_without_a_warning() -> None:
    data = png_of(15_000, 15_000, 1, 0, b"")
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        assert upright_size(remove_metadata(data)) == (15_000, 15_000)
    assert raised == []


def test_upright_size_is_that_of_the_decoded_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for format_name in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encoded(gradient(), format_name, exif=exif)
        assert upright_size(remove_metadata(data)) == decode_image(data).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("size", [(2**16, 2**16), (2**31 - 1, 2**31 - 1)])
def test_upright_size_refuses_what_no_memory_holds(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidImage):
        upright_size(remove_metadata(png_of(*size, 1, 0, b"")))


def test_tiff_with_a_tile_far_beyond_the_image_is_refused() -> None:
    ifd = [
        (256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
        (322, 4, 60_000), (323, 4, 60_000), (324, 4, 8), (325, 4, 8),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in ifd)
    data = b"II*\0" + struct.pack("<IH", 8, len(ifd)) + entries + b"\0" * 4
    with pytest.raises(InvalidImage):
        decode_image(data)


def test_progressive_jpeg_of_countless_scans_is_refused() -> None:
    data = encoded(gradient(), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    with pytest.raises(UnreadableImage, match="more than 64 scans"):
        decode_image(data[:at] + data[at:-2] * 300 + b"\xff\xd9")


def test_png_text_that_unpacks_to_gigabytes_is_harmless() -> None:
    packed = zlib.compress(b"\0" * 50_000_000)
    bombs = [(b"iTXt", b"k\0\1\0\0\0" + packed), (b"zTXt", b"k\0\0" + packed), (b"iCCP", b"p\0\0" + packed)]
    rows = (b"\0" + b"\x40" * WIDTH) * HEIGHT
    assert pixels(decode_image(png_of(WIDTH, HEIGHT, 8, 0, rows, *bombs))).max() == 0x40


def test_exif_whose_entries_all_claim_the_same_megabyte_is_harmless() -> None:
    entries = b"".join(struct.pack("<HHII", tag, 7, 60_000, 100) for tag in range(5_000))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 5_000) + entries
    assert decode_image(encoded(gradient(), "JPEG", exif=exif[:65_000])).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_file_that_is_cut_off_is_unreadable(format_name: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, format_name)
    for keep in (0.2, 0.5, 0.9):
        with pytest.raises(UnreadableImage):
            decode_image(data[: int(len(data) * keep)])


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"<html>", b"%PDF-1.7", b"GIF89a" + b"\0" * 50, b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"BM" * 40,
     b"\x89PNG\r\n\x1a\n", b"RIFF\x04\0\0\0WEBP", b"RIFF\xff\xff\xff\xffWEBP", b"II*\0", b"MM\0+\0\x08\0\0"],
)  # fmt: skip
def test_what_is_no_image_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode_image(data)


def test_image_of_a_few_pixels_is_unreadable() -> None:
    with pytest.raises(UnreadableImage, match="each side needs at least 8"):
        decode_image(encoded(Image.new("RGB", (7, 900)), "PNG"))


def test_absent_file_and_folder_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file"):
        decode_image(tmp_path / "absent.jpg")
    with pytest.raises(UnreadableImage, match="cannot be read"):
        decode_image(tmp_path)


def test_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "sparse.tif"
    with file.open("wb") as sparse:
        sparse.truncate(3_000_000_000)
    with pytest.raises(ImageTooLarge, match="3,000,000,000"):
        decode_image(file)


def test_refusal_quotes_nothing_of_the_file() -> None:
    data = encoded(gradient(), "PNG").replace(b"IDAT", b"\xc3LAT")
    with pytest.raises(UnreadableImage) as refusal:
        decode_image(data)
    assert "LAT" not in str(refusal.value)


def test_threads_decode_without_disturbing_each_other() -> None:
    files = [encoded(gradient(w, 40), fmt) for w in range(20, 60) for fmt in ("JPEG", "PNG")]

    def attempt(data: bytes) -> tuple[int, int]:
        with pytest.raises(ImageTooLarge):
            decode_image(data, max_pixels=100)
        return decode_image(data).size

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(attempt, files)) == [(w, 40) for w in range(20, 60) for _ in range(2)]


SEEDS = [
    encoded(gradient(), "JPEG"),
    encoded(gradient(), "JPEG", progressive=True, icc_profile=swapped_profile()),
    encoded(gradient().convert("CMYK"), "JPEG"),
    encoded(gradient(), "PNG"),
    encoded(gradient().quantize(16), "PNG", transparency=3),
    encoded(gradient(), "WEBP", lossless=True, icc_profile=swapped_profile()),
    encoded(gradient().convert("RGBA"), "WEBP"),
    encoded(gradient(), "TIFF", compression="tiff_lzw"),
    encoded(gradient().convert("RGBA"), "TIFF"),
    encoded(Image.fromarray(grey_ramp(65535, np.uint16)), "TIFF", compression="tiff_adobe_deflate"),
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
    insert=st.binary(max_size=8),
)
def test_mutated_files_decode_or_are_refused(
    seed: bytes, changes: list[tuple[float, int]], cut: float, insert: bytes
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[min(int(place * len(data)), len(data) - 1)] = value
    middle = len(data) // 3
    mutated = bytes(data[:middle] + insert + data[middle:])[: int(cut * (len(data) + len(insert)))]
    try:
        decoded = decode_image(mutated, max_pixels=1_000_000)
    except InvalidImage:
        return
    assert decoded.mode == "RGB"
    assert decoded.width * decoded.height <= 1_000_000

import io
import os
import resource
import struct

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from detfeed import ImageError
from detfeed.images.decoding import MAX_SCANS, decode_image, read_image, used_bits
from detfeed.images.files import read_bytes
from detfeed.images.headers import read_header
from image_files import FILES, encode, picture, png, png_chunk

PICTURE = picture()


def decode(content, **arguments):
    return decode_image(np.frombuffer(content, np.uint8), **arguments)


def apart(image, other):
    return int(np.abs(image.astype(int) - other).max())


def as_pillow_has_it(content):
    image = Image.open(io.BytesIO(content))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_is_uint8_rgb_whatever_its_suffix(tmp_path, kind):
    (tmp_path / "a.txt").write_bytes(FILES[kind])
    image = read_image(tmp_path / "a.txt")
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    expected = np.rot90(PICTURE, -1) if "turned" in kind else PICTURE
    assert image.shape == expected.shape
    lossy = kind.startswith("jpeg") or kind in ("webp", "png palette", "gif")
    assert np.abs(image.astype(int) - expected).mean() <= (4 if lossy else 0)
    if "16 bit" not in kind and kind != "jpeg cmyk":
        np.testing.assert_array_equal(image, as_pillow_has_it(FILES[kind]))


@pytest.mark.parametrize(
    ("format", "mode"),
    [
        *((format, mode) for format in ("PNG", "WEBP", "BMP", "GIF", "TIFF") for mode in ("1", "L", "P", "RGB")),
        # Not TIFF, of which cv2 multiplies the colours with alpha.
        *((format, mode) for format in ("PNG", "WEBP") for mode in ("LA", "RGBA")),
    ],
)
def test_modes_of_lossless_formats_come_as_pillow_has_them_without_alpha(format, mode):
    pixels = np.dstack([PICTURE, PICTURE[::-1, :, 1]]) if mode in ("LA", "RGBA") else PICTURE
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    content = encode(pixels, format, mode, **options)
    np.testing.assert_array_equal(decode(content), np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits_are_read(bits):
    colours = bytes(range(100, 148))[: 3 << bits]
    content = png(8, 1, b"\0" + bytes([0b00011011] * bits), kind=3, bits=bits, before=png_chunk(b"PLTE", colours))
    np.testing.assert_array_equal(decode(content), as_pillow_has_it(content))


def test_transparent_colours_of_a_palette_are_those_of_the_palette():
    chunks = png_chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60])) + png_chunk(b"tRNS", b"\0")
    assert decode(png(2, 1, b"\0\0\1", kind=3, before=chunks)).tolist() == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_to_8_and_not_cut(suffix, channels):
    deep = np.arange(0, 65536, 16).astype(np.uint16).reshape(32, 128)
    deep[0, :5] = 65535, 128, 129, 65406, 65407
    pixels = np.dstack([deep, deep[::-1], deep[:, ::-1], deep])[..., :channels]
    image = decode(cv2.imencode(suffix, pixels)[1].tobytes())
    expected = np.rint(pixels / 257).astype(np.uint8)[..., :3]
    expected = np.repeat(expected, 3, axis=2) if channels == 1 else expected[..., ::-1]
    np.testing.assert_array_equal(image, expected)
    if channels == 1:
        assert image[0, :5, 0].tolist() == [255, 0, 1, 254, 255]


def test_pixels_of_more_than_16_bits_are_refused():
    with pytest.raises(ImageError, match=r"expected pixels of 8 or 16 bits in 1 to 4 channels, got float32"):
        decode(cv2.imencode(".tiff", np.ones((4, 4), np.float32))[1].tobytes())


def test_grey_jpeg_has_three_equal_channels():
    image = decode(encode(np.full((10, 12, 3), 77, np.uint8), "JPEG", "L"))
    assert image.shape == (10, 12, 3)
    assert apart(image, 77) <= 1


def test_cmyk_jpeg_is_taken_as_inverted_with_and_without_the_mark_of_adobe():
    # Pillow writes CMYK JPEGs as Adobe does.
    marked = FILES["jpeg cmyk"]
    assert b"Adobe" in marked
    place = marked.index(b"Adobe") - 4
    plain = marked[:place] + marked[place + 2 + struct.unpack(">H", marked[place + 2 : place + 4])[0] :]
    for content in (marked, plain):
        assert apart(decode(content), as_pillow_has_it(marked)) <= 1
        assert np.abs(decode(content).astype(int) - PICTURE).mean() < 3


def test_jpegs_have_the_pixels_that_cv2_gives_them(data):
    for path in sorted((data / "coco" / "train2017").iterdir())[:10]:
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


def test_first_picture_of_an_animation_counts():
    frames = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (40, 200)]
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        out = io.BytesIO()
        frames[0].save(out, format, save_all=True, append_images=frames[1:])
        assert apart(decode(out.getvalue()), 40) <= 1, format


def test_missing_empty_and_unknown_files_raise_and_name_the_file(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, got in (
        ("missing.jpg", "No such file"),
        ("empty.jpg", "0 bytes"),
        ("text.jpg", "bytes that begin with b'not an image'"),
        ("pipe.jpg", "a folder, pipe or device"),
    ):
        with pytest.raises(ImageError, match=rf"{name}: expected .*{got}"):
            read_image(tmp_path / name)
    with pytest.raises(ImageError, match="got a folder, pipe or device"):
        read_bytes(tmp_path)


def test_file_of_absurd_length_is_not_read(tmp_path):
    with open(tmp_path / "a.bmp", "wb") as file:
        file.write(FILES["bmp"])
        file.truncate(2**31)  # without taking any room
    with pytest.raises(ImageError, match=r"a\.bmp: expected an image of at most 2147483647 bytes, got 2147483648"):
        read_image(tmp_path / "a.bmp")


@pytest.mark.parametrize("kind", FILES)
def test_file_cut_short_anywhere_never_gives_a_part_of_the_picture(kind):
    content = FILES[kind]
    whole = decode(content)
    passed = []
    for size in range(len(content)):
        try:
            image = decode(content[:size])
        except ImageError:
            continue
        passed.append(len(content) - size)
        assert kind.startswith("tiff"), "what a TIFF ends with may be no part of the picture"
        np.testing.assert_array_equal(image, whole)
    assert max(passed, default=0) <= 4


def test_real_jpeg_cut_short_raises_where_cv2_is_silent(data):
    path = data / "dirt" / "kangaroo" / "images" / "00090.jpg"
    assert cv2.imread(str(path)) is not None
    with pytest.raises(ImageError, match=r"00090\.jpg: expected a whole image, got .* replace the file or leave"):
        read_image(path)


def test_bytes_after_the_end_do_no_harm(data):
    assert read_image(data / "dirt" / "helmet" / "images" / "000692.png").ndim == 3
    for kind, content in FILES.items():
        np.testing.assert_array_equal(decode(content + b"\0\xff\xda" * 50), decode(content), err_msg=kind)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 8}, {"subsampling": 0}])
def test_damage_inside_a_jpeg_is_noticed(options):
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8), (5, 5), 0)
    content = encode(noise, "JPEG", quality=90, **options)
    start = content.index(b"\xff\xda") + 14
    unnoticed_by_cv2 = noticed = 0
    for place in np.linspace(start, len(content) - 70, 100).astype(int):
        junk = np.random.default_rng(place).integers(0, 255, 64, np.uint8).tobytes()
        damaged = content[:place] + junk + content[place + 64 :]
        try:
            decode(damaged)
        except ImageError:
            noticed += 1
            unnoticed_by_cv2 += cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_COLOR) is not None
    assert noticed >= 90
    assert unnoticed_by_cv2 >= 80


def test_any_byte_changed_in_a_png_is_noticed_or_changes_nothing():
    for kind in ("png", "png palette"):
        content = FILES[kind]
        whole = decode(content)
        unnoticed = []
        for place in [*range(60), *range(60, len(content) - 24, 7), *range(len(content) - 24, len(content))]:
            try:
                image = decode(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
            except ImageError:
                continue
            unnoticed.append(len(content) - place)
            np.testing.assert_array_equal(image, whole)
        assert max(unnoticed) <= 8, "the name and the checksum of the last chunk"


def test_png_with_too_few_rows_raises():
    row = b"\0" + bytes(9)
    assert decode(png(3, 4, 4 * row)).shape == (4, 3, 3)
    with pytest.raises(ImageError, match="do not decode as png"):
        decode(png(3, 4, 3 * row))


def unusual(warning):
    """A JPEG that libjpeg warns of although it is whole."""
    content = bytearray(FILES["jpeg"])
    if warning == "unknown JFIF revision":  # as of many in the cats and dogs of Kaggle
        content[content.index(b"JFIF\0") + 5] = 0
    elif warning == "Unknown Adobe color transform":
        content[2:20] = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\3"
    else:
        content[content.index(b"\xff\xda") + 12] = 0
    return bytes(content)


@pytest.mark.parametrize(
    "warning", ["unknown JFIF revision", "Invalid SOS parameters", "Unknown Adobe color transform"]
)
def test_harmless_warnings_of_libjpeg_are_no_errors_and_hide_no_cut(warning):
    content = unusual(warning)
    with pytest.raises(ValueError, match=warning):
        simplejpeg.decode_jpeg(content)
    np.testing.assert_array_equal(decode(content), decode(FILES["jpeg"]))
    assert decode(content, at_least_hw=(1, 1)).shape == (24, 40, 3), "cv2 decodes it whole"
    for size in range(len(content)):
        with pytest.raises(ImageError):
            decode(content[:size])


def test_scan_after_scan_is_refused_before_it_takes_time():
    content = FILES["jpeg progressive"]
    scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageError, match=f"more than {MAX_SCANS} scans"):
        decode(content[:-2] + scan * (MAX_SCANS + 1 - content.count(b"\xff\xda")) + content[-2:])


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive"])
def test_scans_of_a_preview_or_a_film_that_comes_with_a_picture_do_not_count(kind):
    content, film = FILES[kind], b"\0\xff\xda" * 2 * MAX_SCANS
    preview = b"\xff\xd8" + film + b"\xff\xd9"
    whole = content[:2] + b"\xff\xe2" + (2 + len(preview)).to_bytes(2, "big") + preview + content[2:] + film
    np.testing.assert_array_equal(decode(whole), decode(content))


def tiff16(pixels, *, planes=False, photometric=2):
    """A TIFF of 16 bits, as cv2 does not write them; pixels uint16 (H, W, C)."""
    height, width, channels = pixels.shape
    strips = [pixels[..., c].tobytes() for c in range(channels)] if planes else [pixels.tobytes()]
    bits, offsets, counts, data = 8, 8 + 2 * channels, 0, 0
    counts = offsets + 4 * len(strips)
    data = counts + 4 * len(strips)
    starts = [data + sum(map(len, strips[:place])) for place in range(len(strips))]
    head = b"II*\0" + struct.pack("<I", data + sum(map(len, strips)))
    head += struct.pack(f"<{channels}H", *[16] * channels)
    head += struct.pack(f"<{2 * len(strips)}I", *starts, *map(len, strips))
    one = len(strips) == 1
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits if channels > 2 else 16),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, len(strips), starts[0] if one else offsets),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, len(strips), len(strips[0]) if one else counts),
        (284, 3, 1, 2 if planes else 1),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return head + b"".join(strips) + directory + b"\0" * 4


def test_16_bit_tiffs_that_cv2_gets_wrong_are_put_right_or_refused():
    wide = PICTURE.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode(tiff16(wide)), PICTURE)
    with pytest.raises(ImageError, match="16 bits with a plane for each channel"):
        decode(tiff16(wide, planes=True))
    grey = wide[..., :1]
    for planes in (False, True):
        expected = np.repeat(PICTURE[..., :1], 3, axis=2)
        np.testing.assert_array_equal(decode(tiff16(grey, planes=planes, photometric=1)), expected)
        np.testing.assert_array_equal(decode(tiff16(~grey, planes=planes, photometric=0)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_or_ignored_alike_in_all_formats(format, orientation):
    tag = {"tiffinfo": {0x0112: orientation}} if format == "TIFF" else {"orientation": orientation}
    content = encode(PICTURE, format, **tag, **({"lossless": True} if format == "WEBP" else {}))
    plain = decode(encode(PICTURE, format, **({"lossless": True} if format == "WEBP" else {})))
    np.testing.assert_array_equal(decode(content, exif="ignore"), plain)
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    for exif in ("apply", "auto"):
        np.testing.assert_array_equal(decode(content, exif=exif), turned)


def test_exif_auto_follows_the_annotated_size():
    content = FILES["jpeg turned"]
    applied, ignored = decode(content, exif="apply"), decode(content, exif="ignore")
    assert applied.shape[:2] == (40, 24)
    np.testing.assert_array_equal(decode(content, annotated_hw=(40, 24)), applied)
    np.testing.assert_array_equal(decode(content, annotated_hw=(24, 40)), ignored)
    square = encode(PICTURE[:, :24], "JPEG", orientation=8)
    np.testing.assert_array_equal(decode(square, annotated_hw=(24, 24)), decode(square, exif="apply"))


def test_annotated_size_that_fits_neither_way_is_an_error_with_all_sizes_and_advice():
    with pytest.raises(
        ImageError,
        match=r"^a\.jpg: expected the annotated height and width \(40, 40\), got \(24, 40\) as stored and \(40, 24\) "
        r"turned by its EXIF orientation 6; correct the annotation or the image",
    ):
        decode(FILES["jpeg turned"], annotated_hw=(40, 40), name="a.jpg")
    with pytest.raises(ImageError, match=r"width \(40, 24\), got \(24, 40\); correct the annotation"):
        decode(FILES["png"], annotated_hw=(40, 24))
    for exif, annotated_hw, other in (("ignore", (40, 24), "apply"), ("apply", (24, 40), "ignore")):
        with pytest.raises(ImageError, match=rf'orientation 6; exif="auto" or exif="{other}" would fit'):
            decode(FILES["jpeg turned"], annotated_hw=annotated_hw, exif=exif)


def test_another_word_for_exif_is_refused():
    with pytest.raises(ValueError, match=r"exif to be one of \('auto', 'apply', 'ignore'\)\. Received: 'no'"):
        decode(FILES["jpeg"], exif="no")


def test_orientations_of_real_files(data):
    helmet = data / "dirt" / "helmet" / "images" / "000695.png"
    assert read_image(helmet).shape == (4608, 2112, 3)
    assert read_image(helmet, annotated_hw=(2112, 4608)).shape == (2112, 4608, 3)
    assert read_image(helmet, at_least_hw=(1000, 400)).shape == (1152, 528, 3)
    invalid = data / "dirt" / "kangaroo" / "images" / "00076.jpg"
    np.testing.assert_array_equal(read_image(invalid, exif="apply"), read_image(invalid, exif="ignore"))


def smooth_jpeg(height, width, **options):
    return encode(picture(height, width), "JPEG", quality=95, subsampling=0, **options)


@pytest.mark.parametrize(
    ("image_hw", "at_least_hw", "expected_hw"),
    [
        ((80, 160), (10, 20), (10, 20)),
        ((80, 160), (1, 1), (10, 20)),
        ((80, 160), (10, 21), (20, 40)),
        ((80, 160), (40, 80), (40, 80)),
        ((80, 160), (41, 80), (80, 160)),
        ((80, 160), (80, 160), (80, 160)),
        ((80, 160), (500, 500), (80, 160)),
        # 41 / 2 = 20.5 is 21 as a picture; 41 / 4 = 10.25 is 10, without the row that shows a quarter of its height.
        ((41, 43), (20, 20), (21, 22)),
        ((41, 43), (10, 10), (10, 11)),
        ((41, 43), (11, 10), (21, 22)),
    ],
)
def test_large_jpeg_is_decoded_no_smaller_than_it_will_be_fed(image_hw, at_least_hw, expected_hw):
    content = smooth_jpeg(*image_hw)
    image = decode(content, at_least_hw=at_least_hw)
    assert image.shape[:2] == expected_hw
    assert image.flags.c_contiguous
    # What is smooth looks the same, sampled where the smaller pixels lie.
    height, width = image_hw
    whole = decode(content)
    rows = ((np.arange(expected_hw[0]) + 0.5) * round(height / expected_hw[0])).astype(int).clip(max=height - 1)
    columns = ((np.arange(expected_hw[1]) + 0.5) * round(width / expected_hw[1])).astype(int).clip(max=width - 1)
    assert apart(image, whole[rows][:, columns]) <= 15
    np.testing.assert_array_equal(image, decode(content, at_least_hw=at_least_hw))


def test_reduced_scale_compares_the_sides_of_the_turned_picture():
    content = smooth_jpeg(80, 160, orientation=6)
    assert decode(content, at_least_hw=(80, 40)).shape[:2] == (80, 40)
    assert decode(content, at_least_hw=(40, 80)).shape[:2] == (160, 80)
    assert decode(content, at_least_hw=(40, 80), exif="ignore").shape[:2] == (40, 80)


def test_reduced_pictures_that_are_cut_short_raise_as_well():
    content = smooth_jpeg(80, 160)
    for size in range(0, len(content), 7):
        with pytest.raises(ImageError):
            decode(content[:size], at_least_hw=(10, 20))


def test_other_formats_are_decoded_whole():
    assert decode(FILES["png"], at_least_hw=(2, 2)).shape == (24, 40, 3)


def bombs():
    """Files of a few bytes that say that they are 60000 x 60000."""
    side = struct.pack(">HH", 60000, 60000)
    jpeg = FILES["jpeg"]
    at = jpeg.index(b"\xff\xc0") + 5
    tiff = bytearray(FILES["tiff"])
    for tag in (256, 257):
        entry = tiff.index(struct.pack("<HH", tag, 4))
        tiff[entry + 8 : entry + 12] = struct.pack("<I", 60000)
    return {
        "jpeg": jpeg[:at] + side + jpeg[at + 4 :],
        "png": png(60000, 60000, b"\0" * 1000),
        "webp": FILES["webp turned"][:24] + b"\x5f\xea\x00\x5f\xea\x00" + FILES["webp turned"][30:],
        "bmp": FILES["bmp"][:18] + struct.pack("<ii", 60000, -60000) + FILES["bmp"][26:],
        "gif": b"GIF89a" + struct.pack("<HH", 60000, 60000) + FILES["gif"][10:],
        "tiff": bytes(tiff),
    }


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "gif", "tiff"])
def test_pictures_of_too_many_pixels_are_refused_before_they_are_decoded(kind):
    assert min(read_header(bombs()[kind]).stored_hw) > 59000
    with pytest.raises(ImageError, match=r"a\.img: expected at most 268435456 pixels, got \d{5} x \d{5}; make the"):
        decode(bombs()[kind], name="a.img")


def test_chunk_that_claims_gigabytes_is_refused_before_cv2_makes_room_for_it():
    content = bytearray(FILES["png"])
    place = content.index(b"IDAT") - 4
    content[place : place + 4] = struct.pack(">I", 2**32 - 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"do not decode as png \(cut short\)"):
        decode(bytes(content))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_limit_of_pixels_can_be_given():
    assert decode(FILES["png"], max_pixels=24 * 40).shape == (24, 40, 3)
    with pytest.raises(ImageError, match="at most 959 pixels, got 24 x 40"):
        decode(FILES["png"], max_pixels=24 * 40 - 1)


def test_picture_that_cv2_refuses_is_an_image_error():
    # Wider than cv2 allows, 2**20 pixels, but not too many of them.
    with pytest.raises(ImageError, match=r"a\.png: expected a whole image, got \d+ bytes that do not decode as png \("):
        decode(png(2**20 + 1, 1, b"\0" * (3 * 2**20 + 4)), name="a.png")


def is_image_or_error(content):
    try:
        image = decode(content, max_pixels=10**6)
    except ImageError:
        return None
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    return image


@settings(max_examples=300)
@given(st.sampled_from([content[:26] for content in FILES.values()]), st.binary(max_size=300))
def test_any_bytes_give_an_image_or_an_image_error(start, rest):
    is_image_or_error(rest)
    is_image_or_error(start + rest)


@settings(max_examples=400)
@given(st.sampled_from(list(FILES)), st.data())
def test_any_change_of_a_file_gives_an_image_or_an_image_error(kind, data):
    content = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        new = data.draw(st.binary(max_size=8) | st.integers(0, 255).map(lambda value: bytes([value])))
        content[place : place + data.draw(st.sampled_from([0, len(new), 40]))] = new
    is_image_or_error(bytes(content))


@pytest.mark.parametrize(("largest", "kind"), [(255, np.uint8), (15, np.uint8), (4095, ">u2"), (65535, ">u2")])
def test_ppm_is_scaled_by_its_largest_value_and_may_have_comments(largest, kind):
    values = np.array([[[0, largest // 3, largest]], [[largest, 0, largest]]], kind)
    data = b"P6 # by hand\n1\t2\n# 9 9\n%d\n" % largest + values.tobytes()
    image = decode_image(np.frombuffer(data + b"rest", np.uint8))
    assert image.tolist() == [[[0, 85, 255]], [[255, 0, 255]]]
    with pytest.raises(ImageError, match=r"do not decode as ppm \(cut short\)"):
        decode_image(np.frombuffer(data[:-1], np.uint8))


def test_pgm_becomes_three_equal_channels():
    data = np.frombuffer(b"P5\n2 1\n255\n\x07\xff", np.uint8)
    assert decode_image(data).tolist() == [[[7, 7, 7], [255, 255, 255]]]


@pytest.mark.parametrize("header", [b"P6\n1 x 255\n", b"P6\n1 1 0\n", b"P6\n1 1 65536\n", b"P6 #" + b"x" * 2000])
def test_ppm_of_a_bad_header_is_an_error(header):
    with pytest.raises(ImageError, match="expected the header of a ppm file, got one that is damaged or cut short"):
        decode_image(np.frombuffer(header + bytes(9), np.uint8))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_bits_scale_the_values_that_a_16_bit_picture_uses(bits):
    values = np.linspace(0, 2**bits - 1, 256).astype(np.uint16).reshape(16, 16)
    for suffix in (".png", ".tiff"):
        data = cv2.imencode(suffix, values)[1]
        expected = np.round(values * (255 / (2**bits - 1)))
        np.testing.assert_array_equal(decode_image(data, bits=bits)[..., 1], expected)
        assert used_bits(data) == bits
    assert decode_image(cv2.imencode(".png", values)[1], bits=8).max() == 255
    assert used_bits(cv2.imencode(".png", np.zeros((2, 2), np.uint8))[1]) is None


@pytest.mark.parametrize(("bits", "kind"), [(7, ValueError), (17, ValueError), (12.0, TypeError)])
def test_bits_that_no_picture_has_are_refused(bits, kind):
    with pytest.raises(kind, match=rf"Expected bits to be .* Received: .*{bits}"):
        decode(encode(np.zeros((2, 2, 3), np.uint8), "PNG"), bits=bits)


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (np.zeros((4, 5), np.float32), "float32 pixels"),
        (np.zeros((4, 5, 3), np.float32), "float32 pixels"),
        (np.zeros((4, 5), np.float64), "float64 pixels"),
    ],
)
def test_whole_picture_of_pixels_that_are_not_read_is_not_called_damaged(pixels, got):
    data = cv2.imencode(".tiff", pixels)[1]
    with pytest.raises(
        ImageError, match=rf"a\.tif: expected pixels of 8 or 16 bits in 1 to 4 channels, got {got}; con"
    ):
        decode_image(data, name="a.tif")

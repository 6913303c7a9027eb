"""From a file of any kind to what a recogniser takes."""

from __future__ import annotations

import io
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from data.lines import Picture
from data.picture import (
    InputSpec,
    decode_as_shown,
    decode_picture,
    decode_shared,
    natural_width,
    of_one_width,
    picture_size,
    prepare,
    resize,
    scale,
    shown_columns,
    to_rgb,
    with_margins,
)


def png(pixels: NDArray[Any]) -> bytes:
    """Pixels as OpenCV has them (BGR) -> the bytes of a PNG."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "width"),
    [
        ((32, 64), 64),
        ((64, 128), 64),
        ((32, 67), 64),
        ((32, 69), 72),
        ((48, 100), 64),  # 66.7
        ((32, 1), 32),
        ((100, 10), 32),
        ((32, 5000), 2048),
        ((1, 2000), 2048),
    ],
)
def test_the_natural_width_keeps_the_aspect_to_the_nearest_multiple_of_8_within_the_bounds(
    size: tuple[int, int], width: int
) -> None:
    assert natural_width(*size, InputSpec()) == width


def test_the_natural_width_follows_height_multiple_and_bounds_of_the_spec() -> None:
    spec = InputSpec(height=48, width_multiple=4, min_width=48, max_width=96)
    assert [natural_width(24, width, spec) for width in (10, 26, 44, 90)] == [48, 52, 88, 96]


def test_a_width_lies_within_half_a_multiple_of_the_aspect_for_every_size() -> None:
    for width in range(40, 300, 3):
        for height in (16, 32, 47):
            exact = width * 32 / height
            assert abs(natural_width(height, width, InputSpec()) - max(32.0, exact)) <= 4


@pytest.mark.parametrize(
    "fields",
    [
        {"min_width": 30},
        {"max_width": 2047},
        {"min_width": 64, "max_width": 32},
        {"min_width": 0},
        {"height": 0},
        {"width_multiple": 0},
        {"channels": 2},
    ],
)
def test_a_spec_that_no_picture_can_be_brought_to_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="; give "):
        InputSpec(**fields)
    with pytest.raises(ValueError, match="; give "):
        InputSpec.from_json(InputSpec().to_json() | fields)


def test_a_spec_comes_back_from_json_and_unknown_fields_are_refused() -> None:
    spec = InputSpec(channels=1, narrow="margins", turn_above=1.5, min_width=64)
    assert InputSpec.from_json(spec.to_json()) == spec
    with pytest.raises(ValueError, match=r"does not fit this version: .*gamma"):
        InputSpec.from_json(spec.to_json() | {"gamma": 2})


def test_a_narrow_line_is_stretched_or_gets_margins_in_the_colour_of_its_edges() -> None:
    picture = np.zeros((64, 32, 3), np.uint8)
    picture[:, :8], picture[:, 8:24], picture[:, 24:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    stretched = resize(picture, InputSpec(min_width=64))
    assert stretched.shape == (32, 64, 3)
    assert [tuple(stretched[16, x]) for x in (4, 32, 60)] == [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    with_edges = resize(picture, InputSpec(min_width=64, narrow="margins"))
    assert with_edges.shape == (32, 64, 3)
    assert np.array_equal(with_edges[:, 24:40], resize(picture, InputSpec(min_width=16))[:, :])
    assert (with_edges[:, :24] == (200, 0, 0)).all()
    assert (with_edges[:, 40:] == (0, 0, 200)).all()


def test_a_line_that_is_wide_enough_is_the_same_either_way() -> None:
    picture = noise(40, 150)
    assert np.array_equal(resize(picture, InputSpec()), resize(picture, InputSpec(narrow="margins")))


def test_a_width_that_is_asked_for_gets_no_margins() -> None:
    picture = noise(32, 16)
    spec = InputSpec(narrow="margins")
    assert np.array_equal(resize(picture, spec, 64), cv2.resize(picture, (64, 32), interpolation=cv2.INTER_LINEAR))


def test_margins_split_evenly_and_the_odd_pixel_goes_right() -> None:
    picture = noise(32, 20)
    wide = with_margins(picture, 7)
    assert wide.shape == (32, 27, 3)
    assert np.array_equal(wide[:, 3:23], picture)
    assert np.array_equal(with_margins(picture, 0), picture)
    assert (wide[:, :3] == np.rint(picture[:, 0].mean(0))).all()


def test_a_strip_whose_margins_would_fill_the_memory_is_refused_and_no_other_picture() -> None:
    fixed = InputSpec(min_width=320, max_width=320, narrow="margins")
    with pytest.raises(ValueError, match=r"\(1 x 20000 pixels\) .* 4,000 megapixels of at most 100; cut lines"):
        resize(np.zeros((20000, 1, 3), np.uint8), fixed)
    assert resize(np.zeros((1000, 1, 3), np.uint8), fixed).shape == (32, 320, 3)
    assert resize(np.zeros((20000, 1, 3), np.uint8), InputSpec()).shape == (32, 32, 3)


def test_the_transparent_colour_of_an_rgb_png_counts_and_the_grey_of_a_grey_one_does_not() -> None:
    def decoded(pixels: NDArray[np.uint8], transparency: tuple[int, int, int] | int) -> Picture:
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "PNG", transparency=transparency)
        return decode_picture(encoded.getvalue(), "x")

    colour = np.array([[(10, 20, 30), (10, 20, 31)]], np.uint8)
    assert decoded(colour, (10, 20, 30)).tolist() == [[[255, 255, 255], [10, 20, 31]]]
    assert decoded(colour[:, :, 0], 10).tolist() == [[[10, 10, 10], [10, 10, 10]]]


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    picture = noise(32, 64)
    assert np.array_equal(resize(picture, InputSpec()), picture)


def test_shrinking_averages_areas() -> None:
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[::2] = 200
    assert (resize(picture, InputSpec()) == 100).all()


def test_grey_is_the_weighted_sum_of_red_green_and_blue() -> None:
    for colour, weight in (((255, 0, 0), 0.299), ((0, 255, 0), 0.587), ((0, 0, 255), 0.114)):
        picture = np.full((32, 64, 3), colour, np.uint8)
        grey = resize(picture, InputSpec(channels=1))
        assert grey.shape == (32, 64, 1)
        assert abs(int(grey[0, 0, 0]) - 255 * weight) <= 0.5


def test_bytes_become_minus_1_to_1_and_channels_come_first() -> None:
    resized = np.zeros((2, 32, 64, 3), np.uint8)
    resized[..., 0], resized[..., 1] = 255, 51
    scaled = scale(resized, InputSpec())
    assert scaled.shape == (2, 3, 32, 64)
    assert scaled.dtype == np.float32
    assert [float(scaled[0, c, 0, 0]) for c in range(3)] == pytest.approx([1.0, -0.6, -1.0])
    assert scale(resized, InputSpec(scale=1 / 255, offset=0))[0, 0, 0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("spec", [InputSpec(), InputSpec(channels=1), InputSpec(min_width=96, narrow="margins")])
@pytest.mark.parametrize("width", [None, 72])
def test_prepared_is_resized_and_scaled(spec: InputSpec, width: int | None) -> None:
    picture = noise(45, 100)
    assert np.array_equal(prepare(picture, spec, width), scale(resize(picture, spec, width), spec))


def test_colours_come_as_red_green_blue() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:] = (10, 20, 30)  # blue, green, red
    picture = decode_picture(png(pixels), "x.png")
    assert picture.shape == (4, 6, 3)
    assert tuple(picture[0, 0]) == (30, 20, 10)
    assert picture.flags.c_contiguous


def test_grey_pictures_become_three_equal_channels() -> None:
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    picture = decode_picture(png(grey), "x.png")
    assert all(np.array_equal(picture[..., channel], grey) for channel in range(3))


def test_transparency_is_laid_on_white() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)  # black
    pixels[..., 3] = [0, 102, 255]
    picture = decode_picture(png(pixels), "x.png")
    assert picture[0, :, 0].tolist() == [255, 153, 0]


def test_pictures_of_16_bits_keep_their_brightness() -> None:
    grey = np.array([[0, 257 * 128, 65535]], np.uint16)
    assert decode_picture(png(grey), "x.png")[0, :, 0].tolist() == [0, 128, 255]
    transparent = np.zeros((1, 2, 4), np.uint16)
    transparent[0, 1, 3] = 65535
    assert decode_picture(png(transparent), "x.png")[0, :, 0].tolist() == [255, 0]


def test_a_picture_of_floating_point_is_refused_and_not_truncated() -> None:
    encoded = cv2.imencode(".tiff", np.full((4, 4, 3), 0.5, np.float32))[1].tobytes()
    with pytest.raises(ValueError, match=r"x\.tiff has pixels of type float32; store it with 8 or 16 bits"):
        decode_picture(encoded, "x.tiff")


@pytest.mark.parametrize("encoded", [b"", b"no picture", png(noise(8, 8))[:20]])
def test_what_does_not_decode_is_named_with_its_size(encoded: bytes) -> None:
    with pytest.raises(ValueError, match=rf"images/7\.png does not decode as a picture \({len(encoded)} bytes\)"):
        decode_picture(encoded, "images/7.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_the_size_in_the_header_is_that_of_the_decoded_picture(suffix: str) -> None:
    encoded = cv2.imencode(suffix, noise(21, 34))[1].tobytes()
    assert picture_size(encoded, "x") == decode_picture(encoded, "x").shape[:2] == (21, 34)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_picture_as_shown_is_turned_and_mirrored_as_its_exif_data_says(orientation: int, suffix: str) -> None:
    smooth = cv2.GaussianBlur(noise(16, 40), (0, 0), 5)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, {"jpg": "JPEG"}.get(suffix, suffix), exif=exif, lossless=True)
    encoded = file.getvalue()
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    shown = decode_as_shown(encoded, "x")
    assert np.abs(shown.astype(int) - np.asarray(expected)).max() <= 3  # two decoders


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_a_picture_whose_exif_data_is_broken_is_shown_as_stored(exif: bytes) -> None:
    encoded = cv2.imencode(".jpg", noise(16, 40))[1].tobytes()
    encoded = encoded[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + encoded[2:]
    assert np.array_equal(decode_as_shown(encoded, "x"), decode_picture(encoded, "x"))


@pytest.mark.parametrize("software", ["a scanner", "ExifTool"])
def test_a_tiff_is_turned_once(software: str) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation], tags[ExifTags.Base.Software] = 6, software
    file = io.BytesIO()
    Image.fromarray(noise(16, 40)).save(file, "TIFF", exif=tags)
    encoded = file.getvalue()
    turned = np.rot90(noise(16, 40), -1)
    assert np.array_equal(decode_as_shown(encoded, "x"), turned)
    assert picture_size(encoded, "x") == decode_picture(encoded, "x").shape[:2] == (40, 16)


def test_a_rotation_in_the_exif_data_is_applied_neither_to_the_size_nor_to_the_picture() -> None:
    encoded = cv2.imencode(".jpg", noise(16, 40))[1].tobytes()
    # APP1 with one entry: orientation 6, turned by 90 degrees
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = encoded[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + encoded[2:]
    assert picture_size(turned, "x") == decode_picture(turned, "x").shape[:2] == (16, 40)


def test_an_opencv_picture_of_any_depth_becomes_rgb() -> None:
    assert to_rgb(np.full((2, 2), 65535, np.uint16)).dtype == np.uint8
    assert to_rgb(np.zeros((2, 2, 3), np.uint8)).shape == (2, 2, 3)


def test_pictures_of_one_width_share_batches_and_narrow_ones_come_first() -> None:
    sizes = [(32, 64), (32, 40), (64, 128), (32, 65), (32, 41)]
    assert list(of_one_width(sizes, InputSpec(), 2)) == [[1, 4], [0, 2], [3]]
    assert list(of_one_width([], InputSpec(), 2)) == []


def test_the_columns_of_margins_are_not_those_of_the_picture() -> None:
    fixed = InputSpec(min_width=160, max_width=160, narrow="margins")
    assert shown_columns(32, 160, fixed, 4) == (0, 40)
    assert shown_columns(32, 80, fixed, 4) == (10, 30)
    assert shown_columns(32, 78, fixed, 4) == (10, 30)  # columns that are seen in part are seen
    assert shown_columns(64, 600, fixed, 4) == (0, 40)
    assert shown_columns(32, 20, InputSpec(), 4) == (0, 8)


def test_columns_beyond_the_width_lie_half_before_the_picture_and_half_behind() -> None:
    fixed = InputSpec(min_width=160, max_width=160, narrow="margins")
    assert shown_columns(32, 160, fixed, 4, 1) == (0, 41)
    assert shown_columns(32, 80, fixed, 4, 1) == (10, 31)  # column 10 is half of it before the picture
    assert shown_columns(32, 78, fixed, 4, 1) == (10, 31)
    assert shown_columns(32, 20, InputSpec(), 4, 1) == (0, 9)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_the_columns_that_are_read_are_there_whatever_the_margin(extra: int) -> None:
    fixed = InputSpec(height=64, channels=1, min_width=320, max_width=320, narrow="margins")
    for width in range(1, 400):
        first, end = shown_columns(64, width, fixed, 4, extra)
        assert 0 <= first <= end <= 80 + extra
        assert end - first >= min(width, 320) // 4 - 1


def jpeg(pixels: NDArray[Any]) -> bytes:
    """Pixels as OpenCV has them (grey or BGR) -> the bytes of a JPEG."""
    return cv2.imencode(".jpg", pixels)[1].tobytes()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(20, 33), (32, 64), (45, 301), (33, 40)])
@pytest.mark.parametrize("way", ["stretch", "margins"])
def test_a_grey_picture_seen_three_times_is_resized_to_the_same_numbers_as_one_with_three_channels(
    channels: Literal[1, 3], size: tuple[int, int], way: Literal["stretch", "margins"]
) -> None:
    encoded = png(noise(*size)[:, :, 0])
    spec = InputSpec(channels=channels, min_width=64, narrow=way)
    shared, whole = decode_shared(encoded, "x"), decode_picture(encoded, "x")
    assert np.array_equal(shared, whole)
    assert np.array_equal(resize(shared, spec), resize(whole, spec))
    assert np.array_equal(resize(shared, spec, 72), resize(whole, spec, 72))


def test_a_shared_grey_picture_holds_one_channel_and_refuses_to_be_written_into() -> None:
    shared = decode_shared(png(noise(8, 8)[:, :, 0]), "x")
    assert shared.strides[2] == 0
    with pytest.raises(ValueError, match="read-only"):
        shared[0, 0, 0] = 1


def test_a_decoded_picture_may_be_written_into() -> None:
    for pixels in (noise(8, 8), noise(8, 8)[:, :, 0]):
        picture = decode_picture(png(pixels), "x")
        picture[0, 0] = (1, 2, 3)
        assert picture[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(20, 64), (40, 100), (32, 64)])
def test_resizing_into_a_batch_gives_what_resizing_alone_gives(channels: Literal[1, 3], size: tuple[int, int]) -> None:
    spec = InputSpec(channels=channels)
    batch = np.zeros((3, 32, 64, channels), np.uint8)
    for picture in (noise(*size), decode_shared(png(noise(*size)[:, :, 0]), "x")):
        resize(picture, spec, 64, batch[1])
        assert np.array_equal(batch[1], resize(picture, spec, 64))
    assert not batch[[0, 2]].any()


def test_resizing_into_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(32, 72, 3\) does not take the picture; give one of \(32, 64, 3\)"):
        resize(noise(32, 64), InputSpec(), 64, np.zeros((32, 72, 3), np.uint8))
    with pytest.raises(ValueError, match="in one piece"):
        resize(noise(32, 64), InputSpec(), 64, np.zeros((32, 128, 3), np.uint8)[:, ::2])


@pytest.mark.parametrize(
    ("height", "decoded"), [(63, 63), (127, 127), (128, 64), (255, 128), (256, 64), (511, 128), (512, 64), (1000, 125)]
)
@pytest.mark.parametrize("grey", [True, False])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_leaves_the_least_height(
    height: int, decoded: int, grey: bool
) -> None:
    pixels = noise(height, 50)
    encoded = jpeg(pixels[:, :, 0] if grey else pixels)
    factor = round(height / decoded)
    assert decode_shared(encoded, "x", 64).shape == (decoded, -(-50 // factor), 3)
    assert decode_shared(encoded, "x").shape == (height, 50, 3)


def test_a_reduced_jpeg_shows_the_same_colours() -> None:
    pixels = np.zeros((128, 256, 3), np.uint8)
    pixels[:, :128], pixels[:, 128:] = (200, 60, 20), (30, 90, 210)  # blue, green, red
    spec = InputSpec()
    whole, reduced = (resize(decode_shared(jpeg(pixels), "x", least), spec).astype(int) for least in (0, 64))
    assert np.abs(whole - reduced).mean() < 1
    assert np.abs(reduced[16, 5] - (20, 60, 200)).max() < 8


def test_only_jpegs_are_decoded_at_a_reduced_scale() -> None:
    assert decode_shared(png(noise(256, 50)), "x", 64).shape == (256, 50, 3)


def test_a_rotation_in_the_exif_data_is_not_applied_to_a_reduced_picture() -> None:
    encoded = jpeg(noise(128, 300))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = encoded[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + encoded[2:]
    assert decode_shared(turned, "x", 64).shape == (64, 150, 3)


@pytest.mark.parametrize("flags", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]])
def test_the_size_of_every_kind_of_jpeg_stands_in_its_frame_header(flags: list[int]) -> None:
    encoded = cv2.imencode(".jpg", noise(300, 21), flags)[1].tobytes()
    assert picture_size(encoded, "x") == picture_size(memoryview(encoded), "x") == (300, 21)
    padded = encoded[:2] + b"\xff\xff" + encoded[2:]  # fill bytes may stand before any marker
    assert picture_size(padded, "x") == (300, 21)


@pytest.mark.parametrize("length", [2, 5, 15, 30])
def test_a_jpeg_that_ends_before_its_frame_header_is_named(length: int) -> None:
    with pytest.raises(ValueError, match=r"x\.jpg does not begin like a picture"):
        picture_size(jpeg(noise(8, 8))[:length], "x.jpg")

"""One reader of pictures for all: what is certain is read as it is meant, the rest is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from conftest import rectangle
from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import read_image
from numpy.typing import NDArray

from vlm_itl.core.errors import UserError
from vlm_itl.core.pictures import UnreadablePictureError, decode, read_picture, suffix
from vlm_itl.detectors.mask_rcnn.mapper import PictureMapper

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (9, 13, 3), dtype=np.uint8)
PICTURE = PIL.Image.fromarray(RGB)
DEEP = np.append(RANDOM.integers(0, 65536, 116), 65535).reshape(9, 13).astype(np.uint16)


def stored(picture: PIL.Image.Image, form: str, **more) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **more)
    return buffer.getvalue()


def png(values: NDArray[np.integer], colour: int) -> bytes:
    """A PNG of 16 bits a channel (height x width x channels), which Pillow does not write in colour; ISO/IEC 15948."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


ORDINARY = {form: stored(PICTURE, form) for form in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")} | {
    f"{mode} {form}": stored(PICTURE.convert(mode), form)
    for mode, form in (("L", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"),
                       ("CMYK", "TIFF"), ("YCbCr", "TIFF"))
}  # fmt: skip
ORDINARY["two in one JPEG"] = stored(PICTURE, "MPO", save_all=True, append_images=[PICTURE])


TURNED = ("JPEG", "PNG", "L JPEG", "P PNG", "1 PNG", "CMYK JPEG")


@pytest.mark.parametrize(("kind", "orientation"), [*((kind, 1) for kind in ORDINARY), *((kind, 6) for kind in TURNED)])
def test_an_ordinary_picture_is_what_detectron2_reads(tmp_path, kind, orientation):
    content = ORDINARY[kind]
    if orientation != 1:
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        with PIL.Image.open(io.BytesIO(content)) as opened:
            content = stored(opened, opened.format, exif=exif)
    file = tmp_path / "picture"
    file.write_bytes(content)
    ours = read_picture(file)
    assert ours.dtype == np.uint8
    assert ours.shape == ((9, 13, 3) if orientation == 1 else (13, 9, 3))
    assert np.array_equal(ours, read_image(str(file), "RGB"))


@pytest.mark.parametrize("orientation", range(10))
def test_orientation_agrees_with_pillow(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    content = stored(PICTURE, "PNG", exif=exif)
    with PIL.Image.open(io.BytesIO(content)) as opened:
        assert np.array_equal(decode(io.BytesIO(content)), np.asarray(PIL.ImageOps.exif_transpose(opened)))


def test_sixteen_bits_of_grey_keep_their_full_range():
    """They were white: Pillow cuts values above 255 off."""
    expected = np.round(DEEP / 65535 * 255)
    for form in ("PNG", "TIFF"):
        pixels = decode(io.BytesIO(stored(PIL.Image.fromarray(DEEP), form)))
        assert pixels.shape == (9, 13, 3)
        assert all(np.array_equal(pixels[..., k], expected) for k in range(3)), form
    negative = stored(PIL.Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0})
    assert np.array_equal(decode(io.BytesIO(negative))[..., 0], 255 - expected)


def test_twelve_bits_in_sixteen():
    pixels = decode(io.BytesIO(stored(PIL.Image.fromarray(DEEP >> 4), "PNG")))
    assert np.array_equal(pixels[..., 0], np.round((DEEP >> 4) / 4095 * 255))
    assert pixels.max() == 255
    one_more = np.where(DEEP >> 4 == 4095, 4096, DEEP >> 4).astype(np.uint16)
    assert decode(io.BytesIO(stored(PIL.Image.fromarray(one_more), "PNG"))).max() == round(4096 / 65535 * 255)
    assert decode(io.BytesIO(stored(PIL.Image.fromarray(np.zeros((9, 13), np.uint16)), "PNG"))).max() == 0


def test_sixteen_bits_of_colour():
    deep = RANDOM.integers(0, 65536, (9, 13, 3))
    assert np.array_equal(decode(io.BytesIO(png(deep, 2))), deep >> 8)
    with pytest.raises(UnreadablePictureError, match="16 bits a channel that uses 12 or fewer"):
        decode(io.BytesIO(png(deep >> 4, 2)))


def test_transparency_lies_on_white():
    """What is under it is nothing that anybody has seen."""
    colours = np.dstack([RGB, np.zeros((9, 13), np.uint8)])
    colours[:, :6, 3] = 255
    expected = np.where(colours[..., 3:] == 255, RGB, 255)
    assert np.array_equal(decode(io.BytesIO(stored(PIL.Image.fromarray(colours), "PNG"))), expected)
    grey = stored(PIL.Image.fromarray(colours).convert("LA"), "PNG")
    assert (decode(io.BytesIO(grey))[:, 6:] == 255).all()
    palette = PICTURE.quantize(4)
    pixels = decode(io.BytesIO(stored(palette, "PNG", transparency=2)))
    assert (pixels[np.asarray(palette) == 2] == 255).all()
    assert np.array_equal(pixels[np.asarray(palette) != 2], np.asarray(palette.convert("RGB"))[np.asarray(palette) != 2])


REFUSED = {
    "whole numbers of 32 bits": (stored(PIL.Image.fromarray(DEEP.astype(np.int32) * 9999), "TIFF"), "mode I, .*save it with 8 bits"),
    "floats": (stored(PIL.Image.fromarray(DEEP.astype(np.float32)), "TIFF"), "mode F, .*save it with 8 bits"),
    "another colour space": (stored(PICTURE.convert("LAB"), "TIFF"), "mode LAB, "),
    "text that is a picture": (b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n0x00};\n", r"not a picture \(JPEG, "),
    "another format": (stored(PICTURE, "PPM"), "not a picture"),
    "PostScript, which another program draws": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "half a picture": (stored(PICTURE, "PNG")[:200], "not a whole picture: "),
    "nothing": (b"", "not a picture"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_certain_is_refused(tmp_path, case):
    content, reason = REFUSED[case]
    (tmp_path / "picture").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{tmp_path}/picture is (a picture of Pillow's )?{reason}") as error:
        read_picture(tmp_path / "picture")
    assert "\n" not in str(error.value)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    """By the header: there is no more of this file."""
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    header += struct.pack(">I", zlib.crc32(header[12:])) + struct.pack(">I", 10) + b"IDAT"
    with pytest.raises(UnreadablePictureError, match=r"50000 x 50000 pixels, more than data.max_pixels of params.yaml allows \(2,000\)"):
        decode(io.BytesIO(header), 2000)
    large = stored(PIL.Image.new("1", (14_000, 13_000)), "PNG")  # Pillow alone refuses as many
    assert decode(io.BytesIO(large), 182_000_000).shape == (13_000, 14_000, 3)


def test_file_name_endings():
    endings = {suffix(ORDINARY[form]) for form in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")}
    assert endings == {".jpg", ".png", ".webp", ".tif", ".bmp", ".gif"}
    assert suffix(ORDINARY["two in one JPEG"]) == ".jpg"


@pytest.mark.parametrize("form", ["RGB", "BGR"])
@pytest.mark.parametrize("training", [True, False])
def test_the_detector_sees_what_it_saw_with_detectron2s_mapper(tmp_path, form, training):
    (tmp_path / "a.jpg").write_bytes(ORDINARY["JPEG"])
    annotation = {"bbox": [2, 2, 5, 5], "bbox_mode": 1, "category_id": 0, "iscrowd": 0, "segmentation": rectangle(9, 13, 2, 2, 5, 5)}
    record = {"file_name": str(tmp_path / "a.jpg"), "image_id": 1, "height": 9, "width": 13, "annotations": [annotation]}
    settings = {
        "is_train": training, "augmentations": [], "image_format": form, "use_instance_mask": True, "instance_mask_format": "bitmask"
    }  # fmt: skip
    ours, theirs = (kind(**settings)(record) for kind in (PictureMapper, DatasetMapper))
    assert ours.keys() == theirs.keys()
    assert ours["image"].equal(theirs["image"])
    if training:
        assert ours["instances"].gt_masks.tensor.equal(theirs["instances"].gt_masks.tensor)


def test_the_detector_sees_sixteen_bits(tmp_path):
    PIL.Image.fromarray(DEEP).save(tmp_path / "a.png")
    mapper = PictureMapper(is_train=False, augmentations=[], image_format="BGR")
    image = mapper({"file_name": str(tmp_path / "a.png"), "height": 9, "width": 13})["image"].numpy()
    assert np.array_equal(image, np.moveaxis(read_picture(tmp_path / "a.png"), 2, 0))
    assert len(np.unique(image)) > 50
    with pytest.raises(UserError, match=r"INPUT.FORMAT is YUV-BT.601; pictures are read as RGB or BGR"):
        PictureMapper(is_train=False, augmentations=[], image_format="YUV-BT.601")({"file_name": str(tmp_path / "a.png")})

"""The one reader of pictures: detector, teachers, judges, galleries and the check in `download` see the same pixels.

| what the file holds | what is read |
| --- | --- |
| 8 bits a channel: grey, RGB, palette, CMYK, YCbCr; 1 bit | RGB as Pillow converts it, byte by byte what Detectron2's `read_image` gives |
| transparency | the picture on a white ground |
| 16 bits, grey | the full range 0..65535 as 0..255; a picture without a value above 4095 is taken for 12 bits, 0..4095 as 0..255 |
| 16 bits, colour | the high byte of each channel; refused where that says next to nothing (12 bits or fewer) |
| 32 bits, signed numbers, floats, other colour spaces | refused: their range is not known |
| several frames | the first |
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from vlm_itl.core.errors import UserError

PIL.Image.MAX_IMAGE_PIXELS = None  # `decode` has a limit of its own, which a setting lifts

IMAGES = Path("artifacts/data/images")  # where `download` leaves them, for commands; a stage is told
Pixels = NDArray[np.uint8]  # height x width x 3, RGB

# opened by name: Pillow knows forty more formats, some of them text, and some start other programs
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif"}
ENDINGS = {*FORMATS.values(), ".jpeg", ".jfif", ".tiff"}  # of files that may hold one
EIGHT_BITS = {"1", "L", "P", "PA", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
TWELVE_BITS, SIXTEEN_BITS = 4095, 65535
ORIENTATION = 0x0112  # EXIF tag; JEITA CP-3451, "Orientation"
PHOTOMETRIC = 262  # TIFF tag; TIFF 6.0, "PhotometricInterpretation"
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT, 3: PIL.Image.Transpose.ROTATE_180, 4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE, 6: PIL.Image.Transpose.ROTATE_270, 7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}  # fmt: skip


class UnreadablePictureError(Exception):
    """Says what the file is, so that "FILE is " can stand before it."""


def read_picture(path: Path) -> Pixels:
    """RGB pixels, turned by EXIF orientation so that they fit the masks.

    Raises:
        UserError: the file holds no picture with a certain meaning.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        try:
            return decode(stream)
        except UnreadablePictureError as error:
            raise UserError(f"{path} is {error}") from None


def decode(stream: BinaryIO, max_pixels: int | None = None) -> Pixels:
    """`read_picture` of an open file.

    Args:
        max_pixels: a larger picture is refused before it is decoded.

    Raises:
        UnreadablePictureError: it cannot be read, or means nothing certain.
    """
    try:
        with PIL.Image.open(stream, formats=list(FORMATS)) as opened:
            width, height = opened.size
            if max_pixels is not None and width * height > max_pixels:
                raise UnreadablePictureError(
                    f"a picture of {width} x {height} pixels, more than data.max_pixels of params.yaml allows ({max_pixels:,})"
                )
            cut = any(";16" in str(tile[3]) for tile in opened.tile) and not opened.mode.startswith("I;16")
            negative = getattr(opened, "tag_v2", {}).get(PHOTOMETRIC) == 0
            opened.load()
            return _rgb(_upright(opened), cut, negative)
    except UnreadablePictureError:
        raise
    except PIL.UnidentifiedImageError:
        raise UnreadablePictureError(f"not a picture ({', '.join(FORMATS)})") from None
    except Exception as error:  # decoders of strangers' bytes raise whatever they stumble over
        raise UnreadablePictureError(f"not a whole picture: {' '.join(str(error).split()) or type(error).__name__}") from None


def suffix(picture: bytes) -> str:
    """The usual ending of a file name for these bytes, which `decode` has read."""
    with PIL.Image.open(BytesIO(picture), formats=list(FORMATS)) as opened:
        return FORMATS.get(opened.format or "", ".jpg")  # a JPEG with several pictures calls itself MPO


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        method = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken EXIF data say nothing; Detectron2 does the same
        method = None
    return image if method is None else image.transpose(method)


def _rgb(image: PIL.Image.Image, cut: bool, negative: bool) -> Pixels:
    """
    Args:
        cut: Pillow has kept the high byte of each channel of 16 bits.
        negative: 0 is white, as a TIFF may say; Pillow heeds that but for 16 bits.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        top = TWELVE_BITS if values.max(initial=0) <= TWELVE_BITS else SIXTEEN_BITS
        grey = ((values * 255 + top // 2) // top).astype(np.uint8)
        grey = 255 - grey if negative else grey
        return np.repeat(grey[..., np.newaxis], 3, axis=2)
    if image.mode not in EIGHT_BITS:
        raise UnreadablePictureError(
            f"a picture of Pillow's mode {image.mode}, of which it is not known what is black and what is white; "
            "save it with 8 bits a channel, or 16 bits grey"
        )
    if image.has_transparency_data:
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    pixels = np.array(image.convert("RGB"))
    if cut and pixels.max(initial=0) <= TWELVE_BITS >> 8:
        raise UnreadablePictureError(
            "a colour picture of 16 bits a channel that uses 12 or fewer of them, which would be read as black; save it with 8"
        )
    return pixels

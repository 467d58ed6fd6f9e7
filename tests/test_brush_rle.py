"""Label Studio's code of a mask, against a slow reading of its description, Label Studio's own converter, and codes that mean harm."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_itl.drawing.brush_rle import decode, encode, unpack

EXAMPLES = int(os.environ.get("VLM_ITL_FUZZ_EXAMPLES", "100"))


def slowly(code: bytes) -> list[int]:
    """The values, bit by bit, as the table in the module says it."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def number(size: int) -> int:
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    many, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < many:
        is_run, size = number(1), sizes[number(2)]
        length = number(size) + 1
        values += [number(word)] * length if is_run else [number(word) for _ in range(length)]
    return values


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    share = draw(st.sampled_from([0, 0.02, 0.5, 0.98, 1]))
    mask: np.ndarray = np.random.default_rng(draw(st.integers(0, 2**32))).random((height, width)) < share
    return mask


@given(masks())
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_is_written_is_read(mask):
    code = encode(mask)
    assert all(type(byte) is int and 0 <= byte < 256 for byte in code)
    assert (decode(bytes(code), *mask.shape) == mask).all()
    assert slowly(bytes(code)) == np.repeat(mask.ravel() * 255, 4).tolist()


def test_long_runs():
    """Longer than one token can say, with edges on both sides of its limit."""
    for begin in (0, 1, 16384, 16385, 70000):
        mask = np.zeros((300, 500), dtype=bool)
        mask.ravel()[begin : begin + 65537] = True
        assert (decode(bytes(encode(mask)), 300, 500) == mask).all()
        assert slowly(bytes(encode(mask))) == np.repeat(mask.ravel() * 255, 4).tolist()


def stream(values: list[tuple[int, int]], header: str | None = None, number: int | None = None) -> bytes:
    """A code of (number, bits)."""
    begin = f"{number or 0:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16)) if header is None else header
    bits = begin + "".join(f"{value:0{size}b}" for value, size in values)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[k : k + 8], 2) for k in range(0, len(bits), 8))


def test_values_one_by_one_at_any_bit():
    """A brush with a soft edge in a class's colour has few runs: then the values stand one by one, from whichever bit on."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, 4 * 12 * 11)
    for first in range(1, 9):  # tokens of 14 bits before
        parts = [(1, 1), (0, 2), (0, 3), (int(values[0]), 8)]
        for k in range(1, first):
            parts += [(0, 1), (0, 2), (0, 3), (int(values[k]), 8)]
        rest = values[first:].tolist()
        code = stream([*parts, (0, 1), (3, 2), (len(rest) - 1, 16), *((value, 8) for value in rest)], number=len(values))
        assert slowly(code) == values.tolist()
        assert unpack(code, len(values)).tolist() == values.tolist()
        assert (decode(code, 12, 11) == (values.reshape(12, 11, 4)[..., 3] >= 128)).all()


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.9]), st.integers(1, 200))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_converter_of_label_studio_agrees(seed, again, pixels):
    theirs = converter()
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, 4 * pixels).astype(np.uint8)
    values[1:][rng.random(4 * pixels - 1) < again] = values[0]
    assert unpack(bytes(theirs.encode_rle(values)), 4 * pixels).tolist() == values.tolist()
    mask = values[::4] >= 128
    code = encode(mask.reshape(1, -1))
    assert theirs.decode_rle(code).reshape(1, pixels, 4)[0, :, 3].tolist() == (mask * 255).tolist()


def converter():
    """label_studio_sdk.converter.brush: from the environment, or from the folder that VLM_ITL_LABEL_STUDIO_SDK names, where
    `uv pip install --target FOLDER label-studio-sdk` has put it. It needs fifty packages, so the project does not ask for it."""
    folder = os.environ.get("VLM_ITL_LABEL_STUDIO_SDK")
    if folder:
        file = Path(folder) / "label_studio_sdk/converter/brush.py"
    else:
        found = importlib.util.find_spec("label_studio_sdk")
        if found is None or found.origin is None:
            pytest.skip("label-studio-sdk is not installed (VLM_ITL_LABEL_STUDIO_SDK=FOLDER names where it is)")
        file = Path(found.origin).parent / "converter/brush.py"
    spec = importlib.util.spec_from_file_location("label_studio_brush", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CODE = bytes(encode(np.eye(6, dtype=bool)))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (b"", "has 0 bytes"),
        (CODE[:6], "has 6 bytes"),
        (bytes(encode(np.eye(5, dtype=bool))), "has 100 values, the image has 144"),
        (b"\xff\xff\xff\xff" + CODE[4:], "has 4,294,967,295 values, the image has 144"),
        (CODE[:4] + b"\xff" + CODE[5:], "values of 32 bits"),
        (CODE[:-3], "ends after 116 of 144 values"),
        (CODE[:7], "ends after 0 of 144 values"),
        (stream([(1, 1), (3, 2), (65535, 16), (255, 8)], number=144), "goes on after its 144 values"),
        (stream([(0, 1), (3, 2), (65535, 16), (255, 8)], number=144), "ends after 0 of 144 values"),
    ],
    ids=["nothing", "no header", "another size", "a bomb", "wide values", "cut", "a header alone", "a long run", "values not there"],
)
def test_codes_that_mean_harm(code, said):
    with pytest.raises(ValueError, match=said):
        decode(code, 6, 6)


def test_a_code_of_too_many_parts_is_given_up():
    code = stream([(1, 1), (0, 2), (0, 3), (255, 8)] * 144, number=144)
    assert unpack(code, 144, most_tokens=144).tolist() == [255] * 144
    with pytest.raises(ValueError, match="more than 143 parts"):
        unpack(code, 144, most_tokens=143)

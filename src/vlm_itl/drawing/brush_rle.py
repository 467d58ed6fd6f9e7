"""Label Studio's run-length code of a mask, `format: rle` of a `brushlabels` region: a list of bytes, which hold one stream of bits.

Label Studio stores the canvas on which the brush painted: four values a pixel (red, green, blue, alpha), row by row. The stream is that of
the npm package `rle-pack`; numbers are unsigned, with the highest bit first.

| bits | what |
| --- | --- |
| 32 | how many values there are: 4 x height x width |
| 5 | bits of a value, less 1: 7, for 8 bits |
| 4 x 4 | four sizes, less 1: bits of a length, from 1 to 16 |
| then, until all values are there: | |
| 1 | 1: a run of one value; 0: values one by one |
| 2 | which of the four sizes the length has |
| that size | the length, less 1 |
| 8, or 8 x length | the value of the run, or the values |
| 0 to 7 | nothing, up to a whole byte |

So a pixel belongs to the mask where its alpha, the last of its four values, is above the half: the brush has soft edges. This is no code
of COCO's: that goes column by column and counts pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEADER = 53  # bits
WORD = 8  # bits of a value
SIZES = (3, 4, 8, 16)  # bits of a length that we write, as Label Studio's own converter does
LONGEST = 2**16  # values of a run
HALF = 128  # alpha from which on a pixel is painted
MOST_TOKENS = 2**22  # runs and stretches of one mask; a stream of more takes minutes, and none that was painted has them


def encode(mask: NDArray[np.bool_]) -> list[int]:
    """The bytes of a mask of shape (height, width): painted pixels have the values 255, the others 0."""
    lengths = 4 * run_lengths(mask.ravel())
    values = np.where(np.arange(len(lengths)) % 2, 255, 0)
    parts = -(-lengths // LONGEST)  # runs longer than a length can say; none of an empty run
    last = lengths - (parts - 1) * LONGEST
    values = np.repeat(values, parts)
    ends = np.cumsum(parts)
    lengths = np.full(len(values), LONGEST)
    lengths[ends[parts > 0] - 1] = last[parts > 0]
    kind = np.searchsorted([2**bits for bits in SIZES], lengths)
    bits = np.array(SIZES)[kind]
    tokens = ((((4 | kind) << bits) | (lengths - 1)) << WORD) | values
    sizes = 3 + bits + WORD
    stream = np.concatenate([_bits(np.array([4 * mask.size]), np.array([32])), _bits(np.array([WORD - 1]), np.array([5])),
                             _bits(np.array(SIZES) - 1, np.array([4] * 4)), _bits(tokens, sizes)])  # fmt: skip
    packed: list[int] = np.packbits(stream).tolist()
    return packed


def _bits(numbers: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The numbers one after the other, the n-th in `sizes[n]` bits, the highest first."""
    behind = np.repeat(np.cumsum(sizes), sizes) - 1 - np.arange(sizes.sum())  # bits of the same number that follow
    return ((np.repeat(numbers, sizes) >> behind) & 1).astype(np.uint8)


def decode(code: bytes, height: int, width: int) -> NDArray[np.bool_]:
    """The mask, of shape (height, width).

    Never more than 4 x height x width bytes are made of a code, whatever its header says.

    Raises:
        ValueError: it is of another size, ends before its values do, or is none.
    """
    values = unpack(code, 4 * height * width)
    return values.reshape(height, width, 4)[..., 3] >= HALF


def unpack(code: bytes, number: int, most_tokens: int = MOST_TOKENS) -> NDArray[np.uint8]:
    """The values in a stream of so many.

    Raises:
        ValueError: see `decode`.
    """
    end = 8 * len(code)
    if end < HEADER:
        raise ValueError(f"its RLE has {len(code)} bytes, fewer than the header of one")
    header = int.from_bytes(code[:7], "big") >> 3  # 56 bits, of which 53 count
    said, word = header >> 21, (header >> 16 & 31) + 1
    if said != number:
        raise ValueError(f"its RLE has {said:,} values, the image has {number:,} (4 a pixel)")
    if word != WORD:
        raise ValueError(f"its RLE has values of {word} bits, {WORD} are expected")
    sizes = [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    values = np.zeros(number, np.uint8)
    padded = code + bytes(8)
    position, done, tokens = HEADER, 0, 0
    while done < number:
        tokens += 1
        if tokens > most_tokens:
            raise ValueError(f"its RLE has more than {most_tokens:,} parts, which no brush paints")
        first = position >> 3
        window = int.from_bytes(padded[first : first + 5], "big")  # a token's head and a value are 27 bits at most
        left = 40 - (position & 7)
        size = sizes[window >> (left - 3) & 3]
        length = (window >> (left - 3 - size) & ((1 << size) - 1)) + 1
        is_run = window >> (left - 1) & 1
        position += 3 + size
        if position + WORD * (1 if is_run else length) > end:
            raise ValueError(f"its RLE ends after {done:,} of {number:,} values")
        if done + length > number:
            raise ValueError(f"its RLE goes on after its {number:,} values")
        if is_run:
            values[done : done + length] = window >> (left - 3 - size - WORD) & 255
            position += WORD
        else:
            start, shift = divmod(position, 8)
            some = np.frombuffer(padded, np.uint8, length + 1, start)
            values[done : done + length] = (some[:-1] << shift) | (some[1:] >> (8 - shift)) if shift else some[:-1]
            position += WORD * length
        done += length
    return values


def run_lengths(values: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of a flat mask, which are False and True by turns; the first is False, and may be 0 long."""
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(values)]]))
    return np.concatenate([[0], lengths]) if values[0] else lengths

"""Reading and writing the small files that stages exchange.

Everything is written to a temporary file beside the target and renamed: a killed stage leaves no torn file, and a file that DVC has
hard-linked from its cache is replaced, never changed in place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any

import msgspec

from vlm_itl.core.errors import UserError


def scratch() -> Path:
    """The folder for what outlives a stage without being its output: VLM_ITL_SCRATCH of the environment, or `scratch`.

    A queued experiment runs in a copy of the repository under `.dvc/tmp/exps` and shares the repository's own.
    """
    if os.environ.get("VLM_ITL_SCRATCH"):
        return Path(os.environ["VLM_ITL_SCRATCH"])
    return (outer_repository() or Path()) / "scratch"


def outer_repository() -> Path | None:
    """The repository that this working tree is an experiment of (`dvc exp run --queue` or `--temp`), None where it is none."""
    return next((folder.parents[2] for folder in Path.cwd().parents if folder.parts[-3:] == (".dvc", "tmp", "exps")), None)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write; on success it becomes `path`, on an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # a full disk shows while writing, where Python does not say to which file; an error without a number is no system's
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on success it takes the place of `target`, on an error it is removed and `target` stays as it is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder = Path(temporary, "new")
        folder.mkdir()
        yield folder
        if target.exists():
            target.rename(Path(temporary, "old"))
        folder.rename(target)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; NaN and infinity are refused (an absent number is null)."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_json_list(path: Path, rows: Iterable[Any]) -> None:
    """`write_json` of a list, byte for byte, with one row in memory at a time."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        before = "["
        for row in rows:
            text = json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False)
            stream.write(f"{before}\n " + text.replace("\n", "\n "))  # a line more to the right; strings hold no line breaks
            before = ","
        stream.write("[]\n" if before == "[" else "\n]\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8; what UTF-8 cannot hold (half a surrogate pair) becomes a question mark."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The content of a file from outside: a pipe would be waited for without end, and a device may never end.

    Args:
        most: bytes; a larger file is not read.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    try:
        stat = path.stat()
    except ValueError as error:  # a NUL, half a surrogate pair
        raise OSError(errno.EINVAL, f"no file can have this name ({error})", str(path)) from None
    if not S_ISREG(stat.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if most is not None and stat.st_size > most:
        raise OSError(errno.EFBIG, f"{stat.st_size:,} bytes, at most {most:,} are expected", str(path))
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        UserError: the file is missing, unreadable or not JSON. NaN, infinity and halves of surrogate pairs, which Python's `json` takes,
            are not.
    """
    try:
        return msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from None


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Parse a file of one JSON object a line.

    Raises:
        UserError: a line is no JSON object.
    """
    rows = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                rows.append(json_object(line))
            except ValueError as error:
                raise UserError(f"{path}:{number}: {error}") from None
    return rows


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line.

    Raises:
        ValueError: it holds none; the message is one line.
    """
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON line: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f"a JSON object is expected, not {type(row).__name__}")
    return row


def feed(digest: hashlib._Hash, path: Path) -> hashlib._Hash:
    """Add a file's content to a digest, block by block: a file may be larger than the memory. Returns the digest."""
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest


def md5(path: Path) -> str:
    """Of a file's content, as DVC records it."""
    return feed(hashlib.md5(), path).hexdigest()

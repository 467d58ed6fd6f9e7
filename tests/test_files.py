"""A list that is written row by row is the file that is written whole, or no file; texts are read in the encodings that people have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vlm_itl.core.files import read_json, read_regular, write_json, write_json_list

ROWS = [
    [], [{}], [[]], [1, "two", None, 0.1, True],
    [{"a": {"size": [1, 2], "counts": 'x\n"\\\u2028é'}, "empty": [], "none": {}, "score": 1e-07}, {"b": [[1.0, [2]], {"c": "\n "}]}],
]  # fmt: skip


@pytest.mark.parametrize("rows", ROWS)
def test_row_by_row_gives_the_same_bytes(tmp_path, rows):
    write_json(tmp_path / "whole.json", rows)
    write_json_list(tmp_path / "rows.json", iter(rows))
    assert (tmp_path / "rows.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert read_json(tmp_path / "rows.json") == rows


def test_a_row_that_fails_leaves_what_was_there(tmp_path):
    write_json(tmp_path / "rows.json", [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_list(tmp_path / "rows.json", [{"score": 0.5}, {"score": float("nan")}])
    assert [p.name for p in tmp_path.iterdir()] == ["rows.json"]
    assert read_json(tmp_path / "rows.json") == [1]


def test_only_regular_files_of_the_expected_size_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, at most 4 are expected"):
        read_regular(tmp_path / "file", 4)
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
    for name in ("a\0b", "\ud800"):
        with pytest.raises(OSError, match="no file can have this name"):
            read_regular(tmp_path / name)

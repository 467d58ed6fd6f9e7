"""The file of people's answers: what was confirmed is never lost, what is damaged is named, several processes may write."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
from conftest import ROOT
from people import answer

from vlm_itl.core.errors import UserError
from vlm_itl.judges.person.answers import Answers, Standing, Undo, parse, written

APPEND = """
import sys
from people import answer
from vlm_itl.judges.person.answers import Answers
file = Answers(__import__("pathlib").Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 100_000):
    file.append(answer(number % 80_000, id=f"{number:032x}"))
    print(number, flush=True)
"""


def undo(number: int, of: int, reviewer: str = "ana") -> Undo:
    return Undo(f"{number:032x}", f"{of:032x}", reviewer, answer(number).answered)


def test_what_is_appended_is_read_again(tmp_path):
    file = Answers(tmp_path / "judges/person/answers.jsonl")
    lines = [answer(1), answer(2, decision="no", reason="class", image="a \u202e <b>\n"), undo(3, 2)]
    for line in lines:
        file.append(line)
    assert file.refresh() == lines
    assert file.refresh() == []
    again = Answers(file.path)
    assert again.lines == lines
    assert list(json.loads(file.path.read_text().splitlines()[0])) == list(asdict(lines[0]))  # the keys' order
    assert [a.id for a in again.standing.of("a" * 64)] == [lines[0].id]


def test_what_others_append_is_read(tmp_path):
    mine, other = (Answers(tmp_path / "answers.jsonl") for _ in range(2))
    other.append(answer(1))
    mine.append(answer(2))
    assert mine.refresh() == [answer(1), answer(2)]


def test_the_earliest_answer_counts_and_undone_ones_and_skips_do_not():
    standing = Standing([answer(5, decision="no"), answer(3, decision="skip"), answer(4), answer(9, reviewer="ben")])
    assert standing.verdict("a" * 64) == answer(4)
    standing.add(undo(10, 4, "ben"))  # not theirs
    assert standing.verdict("a" * 64) == answer(4)
    standing.add(undo(11, 4))
    assert standing.verdict("a" * 64) == answer(5, decision="no")
    assert standing.verdict("b" * 64) is None


def test_the_order_of_lines_and_lines_that_came_twice_change_nothing():
    """As after a merge of two branches."""
    lines = [answer(1), answer(2, "b" * 64), undo(3, 1), answer(4, decision="no"), answer(5, reviewer="ben"), undo(6, 5, "ben")]
    expected = {item: Standing(lines).of(item) for item in ("a" * 64, "b" * 64)}
    for seed in range(20):
        mixed = lines + lines[:3]
        random.Random(seed).shuffle(mixed)
        assert {item: Standing(mixed).of(item) for item in expected} == expected


GOOD = asdict(answer(1))
BAD = {
    "no JSON": ("{", "not a JSON line"),
    "no object": ("[1]", "a JSON object is expected, not list"),
    "unknown key": ({**GOOD, "more": 1}, "more: Unexpected keyword argument"),
    "missing key": ({k: v for k, v in GOOD.items() if k != "page"}, "page: Field required"),
    "another decision": ({**GOOD, "decision": "maybe"}, "decision: Input should be"),
    "no number": ({**GOOD, "seconds": "1"}, "seconds: Input should be a valid number"),
    "negative": ({**GOOD, "seconds": -1}, "seconds: Input should be greater"),
    "infinite": (json.dumps(GOOD).replace("1.5", "1e999"), "seconds: Input should be"),
    "not a number": (json.dumps(GOOD).replace("1.5", "NaN"), "seconds: "),
    "no item": ({**GOOD, "item": "../../etc/passwd"}, "item: String should match"),
    "a name with a slash": ({**GOOD, "reviewer": "a/b"}, "reviewer: String should match"),
    "no day": ({**GOOD, "shown": "2026-02-31T00:00:00.000Z"}, "shown: "),
    "a reason for yes": ({**GOOD, "reason": "class"}, "reason: 'class' beside a decision that is no rejection"),
    "nothing was sent": ({**GOOD, "rendering": ""}, "rendering: a decision about a picture that was not sent"),
    "an undo with more": ({"id": GOOD["id"], "undoes": GOOD["id"], "reviewer": "a", "answered": GOOD["shown"], "x": 1}, "x: Unexpected"),
    "too long": ({**GOOD, "image": "x" * 70_000}, "more than 65,536 bytes"),
    "half a character": (json.dumps(GOOD).replace("a.jpg", "\\ud800"), ""),
    "deep": ("[" * 50_000, "not a JSON line"),
    "another with its id": ({**GOOD, "decision": "no"}, "id: 00000000000000000000000000000001 is another line's, too"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_damage_is_named_in_one_line(tmp_path, case):
    bad, message = BAD[case]
    path = tmp_path / "answers.jsonl"
    text = bad if isinstance(bad, str) else json.dumps(bad)
    path.write_bytes(written(answer(1)) + text.encode() + b"\n" + written(answer(2)))
    with pytest.raises(UserError) as error:
        Answers(path)
    assert str(error.value).startswith(f"{path}:2: {message}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_torn_last_line_is_said_and_mended(tmp_path, capsys, cut):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(written(answer(1)) + written(answer(2))[:-1][:-cut])
    file = Answers(path)
    assert file.lines == [answer(1)]
    assert f"{path}:2: not written to its end" in capsys.readouterr().out
    assert file.refresh() == []
    assert capsys.readouterr().out == ""  # once
    file.append(answer(3))
    assert "is removed" in capsys.readouterr().out
    assert file.refresh() == [answer(3)]
    assert Answers(path).lines == [answer(1), answer(3)]


def test_a_last_line_without_its_end_may_be_whole(tmp_path):
    """As an editor leaves it."""
    path = tmp_path / "answers.jsonl"
    path.write_bytes(written(answer(1)) + written(answer(2))[:-1])
    file = Answers(path)
    file.append(answer(3))
    assert file.refresh() == [answer(3)]
    assert file.lines == Answers(path).lines == [answer(1), answer(2), answer(3)]
    path.write_bytes(path.read_bytes() + b"damage\n")
    with pytest.raises(UserError, match=":4: not a JSON line"):
        file.refresh()


def test_another_file_is_read_from_its_beginning(tmp_path):
    """As git puts it there."""
    file = Answers(tmp_path / "answers.jsonl")
    file.append(answer(1))
    file.append(answer(2))
    file.refresh()
    (tmp_path / "new").write_bytes(written(answer(3)))
    os.replace(tmp_path / "new", file.path)
    assert file.refresh() is None
    assert file.lines == [answer(3)]
    file.path.unlink()
    assert file.refresh() is None
    assert len(file.standing) == 0


def test_nothing_invalid_is_written(tmp_path):
    file = Answers(tmp_path / "answers.jsonl")
    for bad in (replace(answer(1), seconds=float("nan")), replace(answer(1), decision="yes", reason="extra"), replace(answer(1), item="x")):
        with pytest.raises(ValueError):
            file.append(bad)
    assert not file.path.exists()
    file.append(replace(answer(1), image="\ud800.jpg"))
    assert file.refresh() == [replace(answer(1), image="?.jpg")]


@pytest.mark.timeout(300)
def test_nothing_confirmed_is_lost_though_processes_are_killed(tmp_path):
    """Two at a time, killed at twenty moments. Each says a number after it is saved."""
    path = tmp_path / "answers.jsonl"
    dice, said, start = random.Random(1), [], 0
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}"}
    for _ in range(10):
        pair = []
        for _ in range(2):
            pair.append(
                subprocess.Popen([sys.executable, "-c", APPEND, path, str(start)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            )
            start += 100_000
        for process in pair:
            said.append(int(process.stdout.readline()))  # it has begun
        for process in pair:
            time.sleep(dice.random() / 10)
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate()
            assert err == b""
            said += [int(line) for line in out[: out.rfind(b"\n") + 1].split()]
    found = {int(line.id, 16) for line in Answers(path).lines}
    assert len(said) >= 20
    assert set(said) <= found


def test_a_file_that_another_process_holds_is_not_waited_for_without_end(tmp_path):
    file = Answers(tmp_path / "answers.jsonl", patience=0.1)
    file.append(answer(1))
    with file.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for act in (file.refresh, lambda: file.append(answer(2))):
            with pytest.raises(UserError, match=r"answers.jsonl: another program holds it for 0.1 s"):
                act()
    file.append(answer(2))
    assert file.refresh() == [answer(1), answer(2)]


def test_a_full_disk_loses_nothing(tmp_path):
    """The system refuses to let the file grow within a line; then it has room again."""
    path = tmp_path / "answers.jsonl"
    file = Answers(path)
    file.append(answer(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = path.read_bytes()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
        with pytest.raises(OSError, match=r"File too large: .*answers\.jsonl"):
            file.append(answer(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    file.append(answer(3))
    assert Answers(path).lines == [answer(1), answer(3)]


def test_a_line_is_short():
    assert len(written(answer(1, image="x" * 100))) < 800
    assert parse(written(answer(1))) == answer(1)


def test_what_is_no_file_is_not_read(tmp_path):
    for name, make in (("pipe", os.mkfifo), ("folder", os.mkdir), ("device", lambda path: os.symlink("/dev/zero", path))):
        make(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: not a regular file"):
            Answers(tmp_path / name)

"""What a reviewer is asked next: order, probes, repeats, overlap, several pages and people, and that a restart changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from people import A, B, C, world

from vlm_itl.core.errors import UserError
from vlm_itl.judges.person.answers import FILE, Answers
from vlm_itl.judges.person.items import cases
from vlm_itl.judges.person.judge import PersonJudge, decided
from vlm_itl.review import session as module
from vlm_itl.review.server import shown
from vlm_itl.review.session import APART, Session

P = "1" * 32  # a page
PLAIN = {"probes": 0.0, "repeats": 0.0, "overlap": 0.0}


class World:
    """A batch, probes and a file of answers; `open` is the program's start."""

    def __init__(self, folder: Path, images: int, known: int = 0, boxes=(A,), **settings) -> None:
        self.judge = PersonJudge(kind="person", **settings)
        made = [
            world(folder / name, {i: list(boxes) for i in ids})
            for name, ids in (("batch", range(1, images + 1)), ("probes", range(1001, 1001 + known)))
        ]
        self.batch, self.probes = (
            list(cases(*some, folder / name, self.judge)) for some, name in zip(made, ("batch", "probes"), strict=True)
        )
        self.path, self.number = folder / "judges/person" / FILE, 0

    def open(self, *reviewers: str) -> Session:
        return Session(self.judge, self.batch, self.probes, Answers(self.path), reviewers or ("ana",))

    def say(self, session: Session, found, decision: str = "yes", name: str = "ana", page: str = P) -> None:
        self.number += 1
        session.answer(name, page, found.key, decision, "", 1.0, 0.0, 0.0, f"{self.number:032x}", "a" * 64, "b" * 64)

    def all(self, session: Session, name: str = "ana", page: str = P, most: int = 10**6, decide=lambda found: "yes") -> list:
        """Everything until nothing is open, as (image id, kind)."""
        asked = []
        while len(asked) < most and (found := session.next(name, page)):
            self.say(session, found, decide(found), name, page)
            asked.append((found.item.image["id"], found.item.kind))
        return asked


def test_the_batch_in_its_order(tmp_path):
    it = World(tmp_path, 5, **PLAIN)
    session = it.open()
    assert session.still_open() == 5
    assert it.all(session) == [(i, "image") for i in range(1, 6)]
    assert session.still_open() == 0
    assert session.answered() == {"ana": 5}
    assert it.all(it.open()) == []
    rows = [json.loads(line) for line in it.path.read_text().splitlines()]
    assert [(row["order"], row["attempt"], row["reviewer"]) for row in rows] == [(k, 1, "ana") for k in range(1, 6)]


def test_probes_and_repeats_come_between_and_the_total_does_not_move(tmp_path):
    it = World(tmp_path, 200, 60, **{**PLAIN, "probes": 0.2, "repeats": 0.1})
    session, asked, totals = it.open(), [], []
    while found := session.next("ana", P):
        totals.append(session.progress("ana").total)
        assert session.progress("ana").done == len(asked)
        it.say(session, found)
        asked.append(found.item.image["id"])
    probes = [i for i in asked if i > 1000]
    batch = [i for i in asked if i <= 1000]
    again = [k for k, i in enumerate(asked) if i in asked[:k]]
    assert list(dict.fromkeys(batch)) == list(range(1, 201))
    assert len(set(probes)) == len(probes)
    assert 0.12 < len(probes) / 200 < 0.28
    assert 0.05 < len(again) / 200 < 0.17
    assert all(k - asked.index(asked[k]) > APART for k in again)
    assert set(totals) == {len(asked)}
    rows = [json.loads(line) for line in it.path.read_text().splitlines()]
    assert [row["attempt"] for row in rows] == [2 if k in again else 1 for k in range(len(asked))]


def test_probes_are_few(tmp_path):
    it = World(tmp_path, 60, 3, **{**PLAIN, "probes": 0.9})
    assert sum(i > 1000 for i, _ in it.all(it.open())) == 3


@pytest.mark.parametrize("unit", ["image", "instance"])
def test_a_restart_at_any_moment_changes_nothing(tmp_path, unit):
    settings = {"unit": unit, "probes": 0.3, "repeats": 0.3, "overlap": 0.5}
    decide = lambda found: "no" if found.key[0] in "012345" else "yes"  # noqa: E731
    one, other = (World(tmp_path / name, 40, 20, (A, B), **settings) for name in ("one", "other"))
    whole = one.all(one.open(), decide=decide)
    parts = []
    while part := other.all(other.open(), most=1, decide=decide):
        parts += part
    assert parts == whole
    assert len(whole) > 40


def test_reviewers_share_what_everybody_gets_and_nothing_else(tmp_path):
    it = World(tmp_path, 100, **{**PLAIN, "overlap": 0.3})
    session, asked = it.open("ana", "ben"), {"ana": [], "ben": []}
    open_to = dict.fromkeys(asked, True)
    while any(open_to.values()):
        for name, page in (("ana", P), ("ben", "2" * 32)):
            found = it.all(session, name, page, most=1)
            open_to[name] = bool(found)
            asked[name] += [i for i, _ in found]
    both = set(asked["ana"]) & set(asked["ben"])
    assert 15 < len(both) < 45
    assert set(asked["ana"]) | set(asked["ben"]) == set(range(1, 101))
    assert all(len(set(some)) == len(some) for some in asked.values())
    late = it.open("cem")
    assert {i for i, _ in it.all(late, "cem")} == both  # of those everybody gets, each one


def test_a_damaged_line_that_is_repaired_loses_nothing(tmp_path):
    """Another program's whole line stood before it: it was read, and not yet noted."""
    it = World(tmp_path, 3, **PLAIN)
    session, other = it.open("ana", "ben"), it.open("ben")
    it.say(session, session.next("ana", P))
    it.say(other, other.next("ben", P), name="ben")
    whole = it.path.stat().st_size
    with it.path.open("ab") as stream:
        stream.write(b"{}\n")
    for _ in range(2):
        with pytest.raises(UserError, match=r"answers\.jsonl:3: .*take the line from git again, or remove it"):
            session.next("ana", P)
    with it.path.open("r+b") as stream:
        stream.truncate(whole)
    assert session.next("ana", P).item.image["id"] == 3
    assert session.still_open() == 1


def test_two_pages_get_two_images_and_in_the_end_each_what_is_left(tmp_path):
    it = World(tmp_path, 3, **PLAIN)
    session, other = it.open(), "2" * 32
    one, two = session.next("ana", P), session.next("ana", other)
    assert (one.item.image["id"], two.item.image["id"]) == (1, 2)
    assert session.next("ana", P).key == one.key  # asked again, as a page does that is loaded again
    it.say(session, one)
    three = session.next("ana", P)
    assert three.item.image["id"] == 3
    it.say(session, three)
    assert session.next("ana", P).key == two.key  # the other page may never come back
    it.say(session, two)
    it.say(session, two, "no", page=other)  # it did: a further answer, which does no harm
    assert [json.loads(line)["attempt"] for line in it.path.read_text().splitlines()] == [1, 1, 1, 2]
    assert decided(it.batch[1], Answers(it.path).standing).approve


def test_undo_brings_the_item_back_wherever_it_came_from(tmp_path):
    it = World(tmp_path, 60, 20, **{**PLAIN, "probes": 0.3, "repeats": 0.3})
    session = it.open()
    seen = set()
    for k in range(200):
        found = session.next("ana", P)
        if found is None:
            break
        kind = "probe" if found.item.image["id"] > 1000 else "again" if found.key in seen else "batch"
        before = session.progress("ana")
        it.say(session, found, "no")
        assert session.undo("ana", P, f"{10**6 + k:032x}")
        assert session.next("ana", P).key == found.key, kind
        assert session.progress("ana") == before
        it.say(session, found)
        seen.add(found.key)
        last = found.key
    assert session.still_open() == 0
    assert session.undo("ana", P, "e" * 32)
    assert session.undo("ana", P, "e" * 32)  # the same request again
    assert session.next("ana", P).key == last
    assert not World(tmp_path / "empty", 1, **PLAIN).open().undo("ana", P, "f" * 32)


def test_a_skipped_image_stays_open_and_comes_when_the_program_starts_again(tmp_path):
    it = World(tmp_path, 4, **PLAIN)
    session = it.open("ana", "ben")
    found = session.next("ana", P)
    it.say(session, found, "skip")
    assert session.progress("ana").total == 3
    assert session.progress("ana").skipped == 1
    assert session.next("ben", "2" * 32).key == found.key  # somebody else may know
    assert [i for i, _ in it.all(session)] == [2, 3, 4]
    assert session.still_open() == 1
    assert session.undo("ana", P, "e" * 32)  # the last one
    it.say(session, session.next("ana", P))
    assert [i for i, _ in it.all(it.open())] == [1]


def test_undo_of_a_skip(tmp_path):
    it = World(tmp_path, 2, **PLAIN)
    session = it.open()
    found = session.next("ana", P)
    it.say(session, found, "skip")
    assert session.next("ana", P).key != found.key
    assert session.undo("ana", P, "e" * 32)
    assert session.next("ana", P).key == found.key
    assert session.progress("ana").total == 2


def test_masks_follow_each_other_then_what_is_missing(tmp_path):
    it = World(tmp_path, 2, boxes=(A, B, C), unit="instance", **PLAIN)
    session = it.open()
    parts, asked = [], []
    for decision in ("yes", "no", "yes", "no", "no", "no", "no"):
        found = session.next("ana", P)
        parts.append(found.part)
        asked.append((found.item.image["id"], found.item.kind, len(found.item.shown)))
        it.say(session, found, decision)
    assert asked == [(1, "mask", 1)] * 3 + [(1, "missing", 2)] + [(2, "mask", 1)] * 3  # of none accepted nobody asks what is missing
    assert parts == [(1, 3), (2, 3), (3, 3), None, (1, 3), (2, 3), (3, 3)]
    assert session.next("ana", P) is None
    assert session.still_open() == 0


def test_undo_goes_back_from_what_is_missing_to_a_mask(tmp_path):
    it = World(tmp_path, 1, boxes=(A, B), unit="instance", **PLAIN)
    session = it.open()
    masks = [session.next("ana", P)]
    it.say(session, masks[0])
    masks.append(session.next("ana", P))
    it.say(session, masks[1])
    rest = session.next("ana", P)
    assert rest.item.kind == "missing"
    session.undo("ana", P, "e" * 32)
    assert session.next("ana", P).key == masks[1].key
    it.say(session, masks[1], "no")
    other = session.next("ana", P)
    assert (other.item.kind, len(other.item.shown)) == ("missing", 1)
    assert other.key != rest.key


@pytest.mark.parametrize("unit", ["image", "instance"])
def test_what_is_brought_ahead_is_what_comes(tmp_path, unit):
    it = World(tmp_path, 40, 20, (A, B), unit=unit, probes=0.3, repeats=0.3, overlap=0.2)
    session, missed, number = it.open(), 0, 0
    found = session.next("ana", P)
    while found:
        ahead = {one.key for one in session.ahead("ana", P, found.key)}
        it.say(session, found, "no" if found.key[0] in "0123" else "yes")
        number += 1
        found = session.next("ana", P)
        missed += bool(found) and found.key not in ahead
    assert number > 60
    assert missed == 0


def test_what_the_page_gets_tells_nobody_where_an_item_comes_from(tmp_path):
    it = World(tmp_path, 60, 30, probes=0.5, repeats=0.3, overlap=0.0)
    session, payloads = it.open(), {}
    while found := session.next("ana", P):
        source = "probe" if found.item.image["id"] > 1000 else "again" if found.key in payloads.get("batch", {}) else "batch"
        payloads.setdefault(source, {})[found.key] = shown(found, it.judge.render)
        it.say(session, found)
    assert set(payloads) == {"batch", "probe", "again"}
    without_key = {json.dumps({**payload, "item": ""}) for some in payloads.values() for payload in some.values()}
    assert len(without_key) == 1  # all have the same mask here; nothing else differs
    assert "png" not in without_key.pop()


def test_answers_of_others_are_seen(tmp_path):
    """Of another program on the same file, or of git."""
    it = World(tmp_path, 4, **PLAIN)
    mine, theirs = it.open("ana"), it.open("ben")
    it.say(theirs, theirs.next("ben", P), name="ben")
    assert mine.next("ana", P).item.image["id"] == 2
    it.path.unlink()
    assert mine.progress("ana").done == 0
    assert mine.next("ana", "2" * 32).item.image["id"] == 1
    assert mine.still_open() == 4


def test_an_answer_that_is_sent_twice_is_kept_once(tmp_path):
    it = World(tmp_path, 2, **PLAIN)
    session = it.open()
    found = session.next("ana", P)
    for _ in range(2):
        session.answer("ana", P, found.key, "no", "class", 1.25, 0.5, 2.0, "e" * 32, "a" * 64, "b" * 64)
    [row] = map(json.loads, it.path.read_text().splitlines())
    assert (row["seconds"], row["hidden"], row["masks"], row["image"]) == (1.25, 0.5, 1, "1.png")
    took = [module.datetime.fromisoformat(row[name][:-1]) for name in ("shown", "answered")]
    assert (took[1] - took[0]).total_seconds() == pytest.approx(1.75, abs=0.002)
    with pytest.raises(KeyError):
        session.answer("ana", P, "0" * 64, "yes", "", 1.0, 0.0, 0.0, "d" * 32, "a" * 64, "b" * 64)

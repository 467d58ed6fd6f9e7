"""What a reviewer is asked next: the batch in its order, and between its images probes, repeats and what everybody is asked.

A *round* is an image to one reviewer: its one item, or its masks and then whether anything is missing. All that is chosen follows from
hashes of what is shown and of the reviewer's name, and from the answers in the file. So a session that is stopped goes on as it would have
gone on. Nothing that leaves this module says whether a round is of the batch, a probe or a repeat.
"""

from __future__ import annotations

import hashlib
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Literal

from vlm_itl.judges.person.answers import Answer, Answers, Line, Reason, Said, Undo
from vlm_itl.judges.person.items import Case, Item
from vlm_itl.judges.person.judge import PersonJudge, decided

APART = 20  # decisions between two answers of one reviewer to the same item
LEASE = 600.0  # seconds for which an image that one page has got is given to no other, as long as there are others
Mode = Literal["batch", "probe", "again"]
Decide = Callable[[str], "bool | None"]  # of an item, by its key: accepted, refused, open


@dataclass(frozen=True)
class Round:
    mode: Mode
    place: int  # of the image in `Session.cases`


@dataclass(frozen=True)
class Next:
    """An item for a page, with its key; `part` is (number, of how many) for the masks of an image."""

    key: str
    item: Item
    part: tuple[int, int] | None


@dataclass(frozen=True)
class Progress:
    """In images; `seconds_left` from the median of the reviewer's decisions, None where there are none yet."""

    done: int
    total: int
    skipped: int
    seconds_left: float | None


@dataclass
class Counts:
    """Images to a reviewer. A slot is an image of the batch after which a probe, or a repeat, comes."""

    open: int = 0
    finished: int = 0
    probes: int = 0  # complete
    repeats: int = 0  # complete
    probe_slots: int = 0  # of the finished
    repeat_slots: int = 0
    probe_slots_open: int = 0  # of the open
    repeat_slots_open: int = 0


@dataclass
class Reviewer:
    """One person's answers, and what follows from them. Arrays are by place of an image."""

    name: str
    probe_slot: bytearray
    repeat_slot: bytearray
    probe_order: list[int]  # places
    open: bytearray  # of the batch: open to this person
    finished: bytearray  # they took part and it is not open; of a probe, complete
    repeated: bytearray  # complete a second time
    counts: Counts = field(default_factory=Counts)
    own: dict[str, list[Answer]] = field(default_factory=dict)  # standing decisions by item, without skips
    history: list[Answer] = field(default_factory=list)  # standing ones in their order, with skips
    decisions: int = 0  # without skips
    since: dict[int, int] = field(default_factory=dict)  # by place: after how many decisions they answered there first
    order: int = 0  # decisions since this program started, with skips
    skipped: dict[int, str] = field(default_factory=dict)  # since this program started: places, by which answer
    lowest: int = 0  # no image of the batch before this place is open


def number(*parts: str) -> float:
    """A number from 0 to 1 that these texts give."""
    return int.from_bytes(hashlib.sha256("/".join(parts).encode()).digest()[:7], "big") / 2**56


class Session:
    """All reviewers of one run. Safe for threads."""

    def __init__(
        self, judge: PersonJudge, batch: Sequence[Case], probes: Sequence[Case], answers: Answers, reviewers: Sequence[str]
    ) -> None:
        """
        Args:
            batch: images with proposals, in the pool's order.
            probes: images with known answers, or none.
        """
        self._lock = threading.RLock()
        self._answers = answers
        self._batch = len(batch)
        self.cases = [*batch, *probes]
        self._groups = [hashlib.sha256("".join(case.keys).encode()).hexdigest() for case in self.cases]
        self._overlap = bytearray(number("overlap", group) < judge.overlap for group in self._groups[: len(batch)])
        self._where: dict[str, list[int]] = {}
        for place, case in enumerate(self.cases):
            for key in dict.fromkeys(case.keys):
                self._where.setdefault(key, []).append(place)
        self._length = sum(len(case.keys) + (judge.unit == "instance") for case in batch) / max(1, len(batch))  # items of an image
        self._judge = judge
        self._names = list(reviewers)
        self._handed: dict[str, Next] = {}
        self._rounds: dict[str, Round] = {}  # by page
        self._forced: dict[str, str] = {}  # by page, the key of an item that was taken back
        self._leases: dict[int, tuple[str, float]] = {}
        self.reviewers: dict[str, Reviewer] = {}
        self._begin()

    # ---- what the answers say

    def _begin(self) -> None:
        """Everything from the answers, at the start and when git has put another file there."""
        old, size, judge = self.reviewers, len(self.cases), self._judge
        self.reviewers = {}
        for name in self._names:
            batch, probes = self._groups[: self._batch], range(self._batch, size)
            made = Reviewer(
                name,
                bytearray(bool(probes) and number(name, group, "probe") < judge.probes for group in batch),
                bytearray(number(name, group, "repeat") < judge.repeats for group in batch),
                sorted(probes, key=lambda place, name=name: number(name, self._groups[place])),  # type: ignore[misc]
                bytearray(b"\1") * self._batch, bytearray(size), bytearray(self._batch),
            )  # fmt: skip
            made.counts = Counts(
                open=self._batch, probe_slots_open=sum(made.probe_slot), repeat_slots_open=sum(made.repeat_slot)
            )  # fmt: skip
            if name in old:
                made.order, made.skipped = old[name].order, old[name].skipped
            self.reviewers[name] = made
        answered = {place for line in self._answers.lines for place in self._note(line)}
        for place in sorted(answered):  # all others are open
            self._update(place)

    def _refresh(self) -> None:
        new = self._answers.refresh()
        if new is None:
            self._begin()
            return
        for line in new:
            for place in self._note(line):
                self._update(place)

    def _note(self, line: Line) -> list[int]:
        """Take a line in; returns the places of the images that it is about."""
        answer = self._answers.standing.answer(line.undoes) if isinstance(line, Undo) else line
        if answer is None:
            return []
        places = self._where.get(answer.item, [])
        reviewer = self.reviewers.get(line.reviewer)
        if reviewer is None:
            return places
        some = reviewer.own.setdefault(answer.item, [])
        if isinstance(line, Undo):
            reviewer.history = [one for one in reviewer.history if one.id != answer.id]
            reviewer.own[answer.item] = [one for one in some if one.id != answer.id]
            reviewer.skipped = {place: id for place, id in reviewer.skipped.items() if id != answer.id}
            reviewer.decisions -= answer.decision != "skip"
            return places
        reviewer.history.append(line)
        if line.decision != "skip":
            some.append(line)
            reviewer.decisions += 1
            if len(some) == 1:  # of what is missing it is not known yet, at the start, of which image that is
                reviewer.since |= {place: reviewer.decisions for place in places if line.item in self.cases[place].keys}
        return places

    def _update(self, place: int) -> None:
        """What one image is to each reviewer now."""
        for reviewer in self.reviewers.values():
            took_part = any(reviewer.own.get(key) for key in self.cases[place].keys)
            if place >= self._batch:
                self._set(reviewer, reviewer.finished, place, took_part and self._walk(reviewer, Round("probe", place)) is None)
                continue
            is_open = self._walk(reviewer, Round("batch", place)) is not None
            self._set(reviewer, reviewer.open, place, is_open)
            self._set(reviewer, reviewer.finished, place, took_part and not is_open)
            twice = took_part and any(len(reviewer.own.get(key, [])) > 1 for key in self.cases[place].keys)
            self._set(reviewer, reviewer.repeated, place, twice and self._walk(reviewer, Round("again", place)) is None)
            if is_open:
                reviewer.lowest = min(reviewer.lowest, place)

    def _set(self, reviewer: Reviewer, flags: bytearray, place: int, value: bool) -> None:
        change, counts = value - flags[place], reviewer.counts
        flags[place] = value
        if not change:
            return
        if place >= self._batch:
            counts.probes += change
        elif flags is reviewer.repeated:
            counts.repeats += change
        elif flags is reviewer.open:
            counts.open += change
            counts.probe_slots_open += change * reviewer.probe_slot[place]
            counts.repeat_slots_open += change * reviewer.repeat_slot[place]
        else:
            counts.finished += change
            counts.probe_slots += change * reviewer.probe_slot[place]
            counts.repeat_slots += change * reviewer.repeat_slot[place]

    # ---- what is open within an image

    def _walk(self, reviewer: Reviewer, round: Round, said: dict[str, bool] | None = None) -> Next | None:
        """The next open item of an image; None where it is complete.

        Args:
            said: items that are taken as answered so.
        """
        said = said or {}
        case, own, standing = self.cases[round.place], reviewer.own, self._answers.standing

        def mine(key: str) -> bool | None:
            some = own.get(key)
            return some[0].decision == "yes" if some else None

        def anybody(key: str) -> bool | None:
            answer = standing.verdict(key)
            return answer.decision == "yes" if answer else None

        def again(key: str) -> bool | None:
            some, least = own.get(key, []), 2 if key in before else 1
            return some[least - 1].decision == "yes" if len(some) >= least else None

        before = set(case.keys)  # what was asked the first time
        ways: list[Decide] = [anybody]
        if round.mode == "probe":
            ways = [mine]
        elif round.mode == "again":
            if rest := self._rest(case, mine):
                before.add(rest[0])
            ways = [again]
        elif self._overlap[round.place]:
            ways = [mine, anybody]
        for way in ways:
            if found := self._first_open(round.place, said, way):
                return found
        return None

    def _first_open(self, place: int, said: dict[str, bool], way: Decide) -> Next | None:
        case = self.cases[place]

        def decide(key: str) -> bool | None:
            return said[key] if key in said else way(key)

        for k, key in enumerate(case.keys):
            if decide(key) is None:
                return Next(key, case.item(k), (k + 1, len(case.keys)) if self._judge.unit == "instance" else None)
        rest = self._rest(case, decide)
        if rest is None:
            return None
        if place not in (places := self._where.setdefault(rest[0], [])):
            places.append(place)
        return Next(*rest, None) if decide(rest[0]) is None else None

    @staticmethod
    def _rest(case: Case, decide: Decide) -> tuple[str, Item] | None:
        """Whether anything is missing beside the accepted masks; None where nobody asks that, or masks are open."""
        if case.judge.unit == "image":
            return None
        accepted = [decide(key) for key in case.keys]
        return None if None in accepted else case.rest([ok is True for ok in accepted])

    # ---- which image is next

    def _choose(self, reviewer: Reviewer, page: str, after: Round | None = None) -> Round | None:
        """The next image for a page.

        Args:
            after: a round that is taken as complete.
        """
        counts = reviewer.counts
        probes, repeats = counts.probe_slots - counts.probes, counts.repeat_slots - counts.repeats
        if after and after.mode == "batch" and not reviewer.finished[after.place]:
            probes += reviewer.probe_slot[after.place]
            repeats += reviewer.repeat_slot[after.place]
        elif after and after.mode == "probe":
            probes -= not reviewer.finished[after.place]
        elif after and after.mode == "again":
            repeats -= not reviewer.repeated[after.place]
        for strict in (True, False):  # what another page has got comes last

            def free(place: int, strict: bool = strict) -> bool:
                here = after is not None and place == after.place
                return not here and place not in reviewer.skipped and (not strict or self._is_free(place, page))

            if probes > 0:
                for place in reviewer.probe_order:
                    if not reviewer.finished[place] and free(place):
                        return Round("probe", place)
            if repeats > 0 and (some := [place for place in self._long_ago(reviewer, bool(after)) if free(place)]):
                return Round("again", min(some, key=lambda place: self._rank(reviewer, place)))
            while reviewer.lowest < self._batch and not reviewer.open[reviewer.lowest]:
                reviewer.lowest += 1
            place = reviewer.open.find(1, reviewer.lowest)
            while place >= 0:
                if free(place):
                    return Round("batch", place)
                place = reviewer.open.find(1, place + 1)
        return None

    def _begun(self, reviewer: Reviewer, page: str) -> Round | None:
        """The image in which the reviewer answered last, where it is not complete: the program was stopped within it."""
        last = reviewer.history[-1] if reviewer.history else None
        places = self._where.get(last.item, []) if last else []
        if last is None or not places or places[0] in reviewer.skipped or not self._is_free(places[0], page):
            return None
        round = self._round_of(last, places[0])
        return round if self._walk(reviewer, round) else None

    def _round_of(self, answer: Answer, place: int) -> Round:
        return Round("probe" if place >= self._batch else "again" if answer.attempt > 1 else "batch", place)

    def _is_free(self, place: int, page: str) -> bool:
        """Whether no other page has got it."""
        holder, until = self._leases.get(place, (page, 0.0))
        return holder == page or until <= time.monotonic()

    def _long_ago(self, reviewer: Reviewer, more: int = 0) -> list[int]:
        """Images that the reviewer can be asked about again, after so many decisions more."""
        own, now = reviewer.own, reviewer.decisions + more
        return [
            place
            for place, since in reviewer.since.items()
            if place < self._batch and reviewer.finished[place] and not reviewer.repeated[place] and now - since >= APART
            and all(own.get(key) for key in self.cases[place].keys)
        ]  # fmt: skip

    def _rank(self, reviewer: Reviewer, place: int) -> tuple[bool, float]:
        """By which an image is asked about again; first of all one that was begun."""
        begun = any(len(reviewer.own.get(key, [])) > 1 for key in self.cases[place].keys)
        return not begun, number(reviewer.name, self._groups[place], "again")

    def _hand(self, page: str, found: Next, place: int) -> Next:
        self._handed[found.key] = found
        self._leases[place] = page, time.monotonic() + LEASE
        return found

    def next(self, name: str, page: str) -> Next | None:
        """The next item for a page of a reviewer; None where nothing is open to them.

        Raises:
            UserError: the file of answers is damaged.
        """
        with self._lock:
            self._refresh()
            reviewer = self.reviewers[name]
            if (key := self._forced.pop(page, None)) and key in self._handed:
                return self._handed[key]
            current = self._rounds.get(page)
            if current and current.place not in reviewer.skipped and (found := self._walk(reviewer, current)):
                return self._hand(page, found, current.place)
            current = self._begun(reviewer, page) or self._choose(reviewer, page)
            if current is None:
                self._rounds.pop(page, None)
                return None
            self._rounds[page] = current
            found = self._walk(reviewer, current)
            assert found
            return self._hand(page, found, current.place)

    def ahead(self, name: str, page: str, key: str) -> list[Next]:
        """What may come after an item that a page has got: after a yes, and after a no where that is another one."""
        with self._lock:
            reviewer, current = self.reviewers[name], self._rounds.get(page)
            found: dict[str, Next] = {}
            if current is None or current.place not in self._where.get(key, []):
                return []
            for yes in (True, False):
                coming, place = self._walk(reviewer, current, {key: yes}), current.place
                if coming is None and (then := self._choose(reviewer, page, current)):
                    coming, place = self._walk(reviewer, then), then.place
                if coming:
                    found[coming.key] = self._hand(page, coming, place)
            return list(found.values())

    def item(self, key: str) -> Next | None:
        """An item that some page has got; None for any other key."""
        return self._handed.get(key)

    # ---- decisions

    def answer(
        self, name: str, page: str, key: str, decision: Said, reason: Reason, seconds: float, hidden: float, ago: float, id: str,
        version: str, rendering: str,
    ) -> None:  # fmt: skip
        """Keep a decision; it is on the disk when this returns. The same `id` again changes nothing: a page repeats what it got no word of.

        Args:
            ago: seconds since the decision.
            version: of the page.
            rendering: of the pictures, see `Answer`.

        Raises:
            KeyError: nobody has got this item.
            OSError: it cannot be written.
            ValueError: it is no valid answer.
        """
        with self._lock:
            self._refresh()
            if known := self._answers.standing.line(id):
                if not isinstance(known, Answer) or (known.item, known.decision, known.reviewer) != (key, decision, name):
                    raise ValueError(f"id: {id} is another decision's")
                return
            reviewer, item = self.reviewers[name], self._handed[key].item
            answered = datetime.now(timezone.utc) - timedelta(seconds=ago)
            self._answers.append(Answer(
                id, key, decision, reason, name, reviewer.order + 1, len(reviewer.own.get(key, [])) + 1,
                moment(answered - timedelta(seconds=seconds + hidden)), moment(answered), round(seconds, 3), round(hidden, 3), item.kind,
                len(item.shown), item.called, version, rendering,
            ))  # fmt: skip
            reviewer.order += 1
            if decision == "skip":
                current = self._rounds.get(page)
                places = self._where.get(key, [])
                place = current.place if current and current.place in places else next(iter(places), None)
                if place is not None:
                    reviewer.skipped[place] = id
                    self._leases.pop(place, None)
            self._refresh()

    def undo(self, name: str, page: str, id: str) -> bool:
        """Take the reviewer's last decision back, and let the page have its item again; False where there is none.

        Raises:
            OSError: that cannot be written.
        """
        with self._lock:
            self._refresh()
            reviewer = self.reviewers[name]
            if known := self._answers.standing.line(id):
                return isinstance(known, Undo) and known.reviewer == name
            last = next((answer for answer in reversed(reviewer.history) if answer.item in self._where), None)
            if last is None:
                return False
            self._answers.append(Undo(id, last.id, name, moment(datetime.now(timezone.utc))))
            self._refresh()
            places = self._where.get(last.item, [])
            if places:
                self._rounds[page] = self._round_of(last, places[0])
            self._forced[page] = last.item
            return True

    # ---- how far it is

    def progress(self, name: str) -> Progress:
        """How far a reviewer is. The total counts what is mixed in, so that it does not move when that comes."""
        with self._lock:
            reviewer = self.reviewers[name]
            counts = reviewer.counts
            skipped = [place for place in reviewer.skipped if place < self._batch and reviewer.open[place]]
            left = counts.open - len(skipped)
            probes = counts.probe_slots + counts.probe_slots_open - sum(reviewer.probe_slot[place] for place in skipped)
            repeats = counts.repeat_slots + counts.repeat_slots_open - sum(reviewer.repeat_slot[place] for place in skipped)
            put_aside = sum(place >= self._batch for place in reviewer.skipped)
            probes_left = max(0, min(probes, len(reviewer.probe_order) - put_aside) - counts.probes)
            repeats_left = max(0, repeats - counts.repeats)
            if reviewer.decisions + left <= APART or not (left or probes_left or self._long_ago(reviewer)):
                repeats_left = 0
            done = counts.finished + counts.probes + counts.repeats
            left += probes_left + repeats_left
            times = [answer.seconds for answer in reviewer.history[-200:] if answer.decision != "skip"]
            seconds = round(statistics.median(times) * left * self._length, 1) if times else None
            return Progress(done, done + left, len(skipped), seconds)

    @property
    def images(self) -> int:
        """Of the batch, with proposals."""
        return self._batch

    def still_open(self) -> int:
        """Images of the batch without a verdict."""
        with self._lock:
            return sum(decided(case, self._answers.standing) is None for case in self.cases[: self._batch])

    def answered(self) -> dict[str, int]:
        """By reviewer how many decisions they made since this program started."""
        with self._lock:
            return {name: reviewer.order for name, reviewer in self.reviewers.items()}


def moment(when: datetime) -> str:
    """UTC as ISO 8601, to the millisecond."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"

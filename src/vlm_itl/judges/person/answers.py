"""What people answered: `judges/<judge>/answers.jsonl`, one JSON object a line, in git, and the one place that reads and writes it.

A line is a decision (`Answer`) or takes one back (`Undo`). Lines are only ever added. Several processes may append at once, and branches
are merged line by line, so nothing depends on the order of lines but what one reviewer did after what.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, BinaryIO, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Reviewer, first_problem
from vlm_itl.core.files import json_object
from vlm_itl.core.redact import say
from vlm_itl.judges.verdict import Unit

FILE = "answers.jsonl"  # in the judge's folder
LONGEST = 2**16  # bytes of a line; ours have some six hundred
PATIENCE = 5.0  # seconds for which another process may hold the file

Said = Literal["yes", "no", "skip"]
Reason = Literal["", "class", "boundary", "missing", "extra", "duplicate"]
REASONS: tuple[Reason, ...] = ("class", "boundary", "missing", "extra", "duplicate")


def _moment(text: str) -> str:
    datetime.fromisoformat(text[:-1])  # a ValueError for the 31st of February
    return text


Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"), AfterValidator(_moment)]
Duration = Annotated[float, Field(ge=0, le=10**7)]
Count = Annotated[int, Field(ge=0, le=10**9)]


@dataclass(frozen=True)
class Answer:
    """A decision of a person. The order of the fields is that of the keys in the file.

    Attributes:
        id: of this answer, random.
        item: what was shown: `vlm_itl.judges.person.items.key`.
        decision: `yes` approves, `no` rejects, `skip` is no answer.
        reason: why not, where the person said so.
        reviewer: who.
        order: number of the decision within this reviewer's session, from 1.
        attempt: how often this reviewer has answered this item before, and 1.
        shown, answered: by the server's clock, UTC.
        seconds: from paint to key, without those in which the page was hidden.
        hidden: seconds in which it was.
        unit: what was asked about: the image, one mask, whether anything is missing.
        masks: how many were shown.
        image: the picture's name, for people.
        page: version of the page: sha256 of its files.
        rendering: sha256 of the bytes of the pictures that were sent; empty where a skipped one could not be shown.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    id: Id
    item: Sha256
    decision: Said
    reason: Reason
    reviewer: Reviewer
    order: Annotated[int, Field(ge=1, le=10**9)]
    attempt: Annotated[int, Field(ge=1, le=10**9)]
    shown: Moment
    answered: Moment
    seconds: Duration
    hidden: Duration
    unit: Unit
    masks: Count
    image: Annotated[str, Field(max_length=1024)]
    page: Sha256
    rendering: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]

    @property
    def when(self) -> tuple[str, int, str]:
        """By which answers are sorted: when each was given."""
        return self.answered, self.order, self.id


@dataclass(frozen=True)
class Undo:
    """A person takes an answer of their own back; `undoes` is its id."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    id: Id
    undoes: Id
    reviewer: Reviewer
    answered: Moment


Line = Answer | Undo
_ANSWER, _UNDO = TypeAdapter(Answer), TypeAdapter(Undo)


def parse(text: bytes) -> Line:
    """The answer in a line.

    Raises:
        ValueError: it is none as this version writes it; the message is one line.
    """
    row = json_object(text)
    try:
        found: Line = (_UNDO if "undoes" in row else _ANSWER).validate_json(text)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None
    if isinstance(found, Answer):
        if found.reason and found.decision != "no":
            raise ValueError(f"reason: '{found.reason}' beside a decision that is no rejection")
        if not found.rendering and found.decision != "skip":
            raise ValueError("rendering: a decision about a picture that was not sent")
    return found


def written(line: Line) -> bytes:
    """The line of an answer.

    Raises:
        ValueError: it is no valid one, so that nothing gets into the file that could not be read again.
    """
    text = json.dumps(asdict(line), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
    if len(text) > LONGEST:
        raise ValueError(f"a line of {len(text):,} bytes")
    parse(text)
    return text


class Standing:
    """Which answers stand, as lines come in: those that their reviewer has not taken back."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self._items: dict[str, dict[str, Answer]] = {}  # by item and id
        self._undone: set[tuple[str, str]] = set()  # id and reviewer; a merge may bring the undo before the answer
        self._known: dict[str, Line] = {}
        for line in lines:
            self.add(line)

    def __len__(self) -> int:
        return sum(len(some) for some in self._items.values())

    def add(self, line: Line) -> Line | None:
        """Take a line in.

        Returns:
            The line, where something is different now; None where it was known, which merges of branches bring about.

        Raises:
            ValueError: another line has its id.
        """
        if line.id in self._known:
            if self._known[line.id] != line:
                raise ValueError(f"id: {line.id} is another line's, too")
            return None
        self._known[line.id] = line
        if isinstance(line, Answer):
            if (line.id, line.reviewer) in self._undone:
                return None
            self._items.setdefault(line.item, {})[line.id] = line
            return line
        self._undone.add((line.undoes, line.reviewer))
        answer = self.answer(line.undoes)
        if answer is None or answer.reviewer != line.reviewer:
            return None
        return line if self._items.get(answer.item, {}).pop(answer.id, None) else None

    def stands(self, answer: Answer) -> bool:
        """Whether its reviewer has not taken it back."""
        return answer.id in self._items.get(answer.item, {})

    def line(self, id: str) -> Line | None:
        """The line with this id; None where there is none."""
        return self._known.get(id)

    def answer(self, id: str) -> Answer | None:
        """The answer with this id, standing or not; None where there is none."""
        found = self._known.get(id)
        return found if isinstance(found, Answer) else None

    def of(self, item: str) -> list[Answer]:
        """Decisions on an item, skips left out, the earliest first."""
        some = [a for a in self._items.get(item, {}).values() if a.decision != "skip"]
        return sorted(some, key=lambda a: a.when) if len(some) > 1 else some

    def seen(self, item: str) -> bool:
        """Whether anybody has decided on it, or skipped it."""
        return bool(self._items.get(item))

    def verdict(self, item: str) -> Answer | None:
        """The answer that counts: the earliest; None for an open item."""
        return next(iter(self.of(item)), None)


class Answers:
    """The file of one judge. `lines` are those that have been read; `refresh` brings what others have added since."""

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        """Read it; there may be none yet.

        Args:
            patience: seconds for which another process may hold it.

        Raises:
            UserError: a line is damaged, see `refresh`.
        """
        self.path, self.patience = path, patience
        self.lines: list[Line] = []
        self.standing = Standing()
        self._end = 0  # how far the file is read: the end of a line
        self._number = 0  # of lines before that
        self._torn = -1  # where a line began that does not end, once that was said
        self._file: tuple[int, int] | None = None  # device and number of it, for a file that git has replaced
        self._begun = False  # something may have been taken in
        self.refresh()

    def refresh(self) -> list[Line] | None:
        """Read what was added.

        Returns:
            The new lines that change something, None where the file is another one than before and was read from its beginning.

        Raises:
            UserError: a line is no answer as this version writes it, or has another one's id; it is named. Not the last line where it does
                not end: a process was killed while it wrote, and nobody was told that it is saved.
        """
        try:
            if not S_ISREG(self.path.stat().st_mode):  # a pipe would be waited for
                raise UserError(f"{self.path}: not a regular file")
            stream = self.path.open("rb")
        except FileNotFoundError:
            again, self._begun = self._begun, False
            self._forget()
            return None if again else []
        with stream:
            self._lock(stream.fileno(), fcntl.LOCK_SH)  # nobody is within a line
            stat = os.fstat(stream.fileno())
            again = self._begun and (self._file != (stat.st_dev, stat.st_ino) or stat.st_size < self._end)
            if again:
                self._forget()
            self._file, self._begun = (stat.st_dev, stat.st_ino), True
            stream.seek(self._end)
            try:
                new = self._read(stream)
            except UserError:
                self._forget()  # what stood before the damage was not handed on
                raise
        return None if again else new

    def append(self, line: Line) -> None:
        """Add a line, which is on the disk when this returns; `refresh` reads it.

        Raises:
            OSError: it could not be written; the file is as it was.
            UserError: another process holds the file.
            ValueError: it is no valid answer.
        """
        text = written(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            self._lock(file, fcntl.LOCK_EX)  # let go when the file is closed, or the process ends
            end = os.fstat(file).st_size
            try:
                end = self._mend(file)
                _write(file, text)
                os.fsync(file)
            except OSError as error:
                os.ftruncate(file, end)
                error.filename = error.filename or str(self.path)
                raise
        finally:
            os.close(file)
        if new:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # of its name, too
            finally:
                os.close(folder)

    def _lock(self, file: int, kind: int) -> None:
        """
        Raises:
            UserError: another process does not let go of the file.
        """
        until = time.monotonic() + self.patience
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise UserError(f"{self.path}: another program holds it for {self.patience:g} s; is one suspended?") from None
            time.sleep(0.01)

    def _mend(self, file: int) -> int:
        """Let the file, which is locked, end with the end of a line: what a killed process left of one was confirmed to nobody.

        Returns:
            Where it ends then.
        """
        end = os.fstat(file).st_size
        last = os.pread(file, LONGEST, max(0, end - LONGEST))
        torn = last[last.rfind(b"\n") + 1 :]
        if torn and len(torn) < LONGEST and not _is_line(torn):
            say(f"{self.path}: its last line was not written to its end and nobody was told that it is saved, so it is removed")
            os.ftruncate(file, end - len(torn))
        elif torn:
            _write(file, b"\n")  # an editor's last line
        return os.fstat(file).st_size

    def _read(self, stream: BinaryIO) -> list[Line]:
        new = []
        while text := stream.readline(LONGEST + 1):
            where = f"{self.path}:{self._number + 1}"
            ends = text.endswith(b"\n")
            if not ends and len(text) <= LONGEST and not _is_line(text):
                if self._torn != self._end:
                    say(f"{where}: not written to its end, so it is left out; nobody was told that it is saved")
                self._torn = self._end
                break
            try:
                if len(text) > LONGEST:
                    raise ValueError(f"more than {LONGEST:,} bytes")
                changing = self.standing.add(parse(text)) if text.strip() else None
            except ValueError as error:
                raise UserError(f"{where}: {error}; take the line from git again, or remove it") from None
            self._number += ends
            self._end += len(text)
            if changing:
                self.lines.append(changing)
                new.append(changing)
        return new

    def _forget(self) -> None:
        self.lines, self.standing, self._end, self._number, self._torn, self._file = [], Standing(), 0, 0, -1, None


def _is_line(text: bytes) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _write(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]

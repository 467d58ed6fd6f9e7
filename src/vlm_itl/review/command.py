"""Let people decide on proposals in a browser: the images of a run, or of its start before there is a run."""

from __future__ import annotations

import argparse
import getpass
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_itl.core.coco import first, read_instances, read_results
from vlm_itl.core.command import errors_in_one_line
from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import LONGEST_NAME, NAME
from vlm_itl.core.pictures import IMAGES
from vlm_itl.core.redact import say
from vlm_itl.core.runs import made
from vlm_itl.judges.person.answers import FILE, Answers
from vlm_itl.judges.person.items import cases
from vlm_itl.judges.person.judge import PersonJudge
from vlm_itl.review.serving import add_options, serve
from vlm_itl.review.session import Session
from vlm_itl.settings import Settings, load

PROBES = Path("artifacts/probes")


@dataclass(frozen=True)
class Work:
    """What is decided on."""

    judge: str  # name in params.yaml
    settings: PersonJudge
    prev: str  # the run, or start, whose proposals they are
    run: str | None
    batch: int | None


def work(settings: Settings, run: str | None, judge: str | None, prev: str | None) -> Work:
    """What the options mean. Without a run: the proposals of a start or run, for a run to come.

    Raises:
        UserError: there is no such run, or its judge is no person.
    """
    people = [name for name, one in settings.judges.items() if isinstance(one, PersonJudge)]
    add = "add one under judges of params.yaml, `person: {kind: person}`, and `mkdir -p judges/person && touch judges/person/.gitkeep`"
    if run is not None:
        if judge or prev:
            raise UserError("--run says which judge and which proposals; leave out --judge and --prev")
        if run == "start":
            raise UserError("the proposals of start are shown without --run (make review without RUN)")
        if run not in settings.runs:
            example = f"{run}: {{judge: {people[0] if people else 'person'}, prev: start, policy: annotate}}"
            raise UserError(f"params.yaml: runs: no '{run}' (there are: {', '.join(settings.runs)}); add a line `{example}`")
        line = settings.runs[run]
        person = settings.judges[line.judge]
        if not isinstance(person, PersonJudge):
            raise UserError(
                f"params.yaml: runs.{run}.judge: '{line.judge}' is no person but {person.kind}, so nobody is asked"
                + ("" if people else f"; {add}")
            )
        return Work(line.judge, person, line.prev, run, line.batch)
    if judge is None and not people:
        raise UserError(f"params.yaml: judges: there is no person; {add}")
    name = judge or people[0]
    found = settings.judges.get(name)
    if not isinstance(found, PersonJudge):
        raise UserError(f"params.yaml: judges: no person '{name}' (there are: {', '.join(people) or 'none'}); {add}")
    prev = prev or "start"
    if prev not in ("start", *settings.autolabels, *settings.runs):
        raise UserError(f"params.yaml: no start or run '{prev}' whose proposals could be shown")
    return Work(name, found, prev, None, None)


def opened(what: Work, settings: Settings, reviewers: Sequence[str]) -> Session:
    """The session of these reviewers.

    Raises:
        UserError: a stage that comes before has not run, or a file is damaged.
    """
    pool, proposals = made(what.prev, "pool.json", read_instances), made(what.prev, "proposals.json", read_results)
    batch = list(cases(first(pool, what.batch), proposals, IMAGES, what.settings))
    if not batch:
        raise UserError(f"loop/{what.prev}/proposals.json: no proposals on the images to review, so there is nothing to decide")
    probes = []
    if what.judge in settings.probed and (PROBES / "pool.json").exists() and (PROBES / "proposals.json").exists():
        asked = read_instances(PROBES / "pool.json")
        probes = list(cases(asked, read_results(PROBES / "proposals.json"), IMAGES, what.settings))
    return Session(what.settings, batch, probes, Answers(Path("judges") / what.judge / FILE), reviewers)


def named(given: Sequence[str]) -> list[str]:
    """The reviewers' names; of nobody else that of who is logged in.

    Raises:
        UserError: one is no name, or stands twice.
    """
    if not given:
        try:
            login = getpass.getuser()
        except (OSError, KeyError):  # no name in the environment, nor for the user's number
            login = ""
        return [re.sub(r"[^A-Za-z0-9_-]+|^[_-]+", "", login)[:LONGEST_NAME] or "reviewer"]
    for name in given:
        if not re.fullmatch(NAME, name) or len(name) > LONGEST_NAME:
            raise UserError(
                f"--reviewer {name}: at most {LONGEST_NAME} letters, digits, - and _ are expected; it stands in the file of answers"
            )
    if len(set(given)) < len(given):
        raise UserError("--reviewer: a name stands twice")
    return list(given)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl review", description=__doc__, epilog="docs/guides/people.md says more.")
    parser.add_argument("--run", help="a line of runs in params.yaml whose judge is a person")
    parser.add_argument("--judge", help="without a run: the person's name in params.yaml (else the first one there)")
    parser.add_argument("--prev", help="without a run: whose proposals are shown (else those of start)")
    add_options(parser)
    arguments = parser.parse_args(argv)
    with errors_in_one_line(Path("judges")):
        review(arguments)


def review(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C, then say what comes next.

    Raises:
        UserError: there is nothing to review, or no such port.
    """
    settings = load()
    what = work(settings, arguments.run or None, arguments.judge, arguments.prev)
    session = opened(what, settings, named(arguments.reviewer))
    serve(session, what.settings.render, Path("judges") / what.judge / FILE, arguments.host, arguments.port)
    left = session.still_open()
    again = f"make review RUN={what.run}" if what.run else "make review"
    if left:
        say(f"{left:,} of {session.images:,} images are still open: {again}")
    elif what.run:
        say(f"all {session.images:,} images are answered; next: dvc repro")
    else:
        add = f"{what.judge}-1: {{judge: {what.judge}, prev: {what.prev}, policy: annotate}}"
        say(f"all {session.images:,} images are answered; next: add a line `{add}` to runs of params.yaml, then dvc repro")

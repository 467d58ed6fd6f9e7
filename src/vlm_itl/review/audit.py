"""Show people a random sample of what a run's judge approved and rejected, and count how much of it is right. `make audit RUN=... N=100`.

The judge's verdict is not shown, and approved and rejected images come mixed. Of an approved image the labels are shown, of a rejected one
what the judge was shown. An answer is kept by the content of what was shown, so it counts as long as that is the same.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_itl.core import typed
from vlm_itl.core.coco import Coco, by_image, read_instances, read_results
from vlm_itl.core.command import errors_in_one_line
from vlm_itl.core.errors import UserError
from vlm_itl.core.files import md5
from vlm_itl.core.pictures import IMAGES
from vlm_itl.core.redact import say
from vlm_itl.core.runs import line_of, made
from vlm_itl.judges import verdict
from vlm_itl.judges.person.answers import FILE, Answers
from vlm_itl.judges.person.items import Case, cases
from vlm_itl.judges.person.judge import PersonJudge
from vlm_itl.judges.verdict import Verdict, check_about
from vlm_itl.loop.accepted import accepted_proposals
from vlm_itl.metrics.audit import AS_WRITTEN, Audit, file_of, sample
from vlm_itl.review.command import named
from vlm_itl.review.serving import add_options, serve
from vlm_itl.review.session import Session
from vlm_itl.settings import Settings, load

FOLDER = Path("audits")
Groups = tuple[list[Case], list[Case]]  # approved, rejected
REVIEWER = PersonJudge(kind="person", probes=0, repeats=0, overlap=0)  # asks about images as a whole, and mixes nothing in


def decided(run: str, pool: Coco, proposals: list[dict[str, Any]], verdicts: Sequence[Verdict], seed: int) -> Groups:
    """(approved, rejected) images that the judge was asked about. What is shown of an approved one is what became labels.

    Their order is seeded, so that a larger sample, the first ones, contains a smaller one.

    Raises:
        UserError: verdicts and proposals do not belong together.
    """
    shown, said = by_image(proposals), {v.image_id: v for v in verdicts if v.asked}
    check_about(verdicts, shown)

    def order(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(images, key=lambda image: hashlib.sha256(f"{seed}/{run}/{image['id']}".encode()).digest())

    found = []
    for approved in (True, False):
        images = order([image for image in pool["images"] if image["id"] in said and said[image["id"]].approve == approved])
        rows = [row for image in images
                for row in accepted_proposals(shown[image["id"]], said[image["id"]].accepted if approved else None)]  # fmt: skip
        found.append(list(cases({**pool, "images": images}, rows, IMAGES, REVIEWER)))
    return found[0], found[1]


def opened(settings: Settings, run: str, seed: int) -> Groups:
    """What a run's judge approved and rejected.

    Raises:
        UserError: there is no such run, or its stages have not run.
    """
    prev = line_of(settings.runs, run).prev
    pool, proposals = made(prev, "pool.json", read_instances), made(prev, "proposals.json", read_results)
    return decided(run, pool, proposals, made(run, "verdicts.jsonl", verdict.read), seed)


def counted(run: str, groups: Groups, answers: Answers, n: int) -> Audit:
    """What people have said so far of images that are still shown so.

    Answers about other verdicts than today's are no random sample of today's groups: of the old groups not the same share was looked at. So
    they count only once the first n of both groups are looked at, and then no other counts.

    Raises:
        UserError: they are not.
    """
    before = typed.read(file_of(run), Audit, AS_WRITTEN) if file_of(run).exists() else None
    if before and before.verdicts != md5(Path("loop", run, "verdicts.jsonl")):
        groups = groups[0][:n], groups[1][:n]
        if left := sum(not answers.standing.seen(case.keys[0]) for group in groups for case in group):
            raise UserError(
                f"loop/{run}/verdicts.jsonl: others than were audited, and of today's sample {left:,} images are open: make audit "
                f"RUN={run} N={n}"
            )
    said = [[answer for case in group if (answer := answers.standing.verdict(case.keys[0]))] for group in groups]
    approved, rejected = (sample(len(group), some) for group, some in zip(groups, said))
    return Audit(
        run=run, verdicts=md5(Path("loop", run, "verdicts.jsonl")), reviewers=sorted({answer.reviewer for some in said for answer in some}),
        approved=approved, rejected=rejected,
    )  # fmt: skip


def in_words(audit: Audit) -> list[str]:
    """Lines for people."""
    lines = []
    for name, part in (("approved", audit.approved), ("rejected", audit.rejected)):
        share = "" if part.share is None else f": {part.estimate.words}"
        lines.append(f"{audit.run}: {part.right:,} of {part.looked_at:,} {name} images are right{share}; there are {part.images:,}")
    return lines


def audit(arguments: argparse.Namespace) -> None:
    """Serve the sample until Ctrl-C, then count.

    Raises:
        UserError: there is nothing to audit, or no such port.
    """
    if arguments.n < 1:
        raise UserError("-n: at least one image")
    run, path = arguments.run, FOLDER / arguments.run / FILE
    groups = opened(load(), run, arguments.seed)
    answers = Answers(path)
    if not arguments.count:
        batch = [case for group in groups for case in group[: arguments.n]]
        if not batch:
            raise UserError(f"loop/{run}/verdicts.jsonl: the judge was asked about no image, so there is nothing to audit")
        batch.sort(key=lambda case: hashlib.sha256(case.keys[0].encode()).digest())  # approved and rejected ones mixed
        session = Session(REVIEWER, batch, [], answers, named(arguments.reviewer))
        serve(session, REVIEWER.render, path, arguments.host, arguments.port)
        if left := session.still_open():
            say(f"{left:,} of {session.images:,} images are still open: make audit RUN={run} N={arguments.n}")
        answers.refresh()
    found = counted(run, groups, answers, arguments.n)
    typed.write(file_of(run), found)
    for text in in_words(found):
        say(text)
    say(f"{file_of(run)}; commit it with {path}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-itl audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a line of runs in params.yaml")
    parser.add_argument("-n", type=int, default=100, metavar="N", help="images of the approved and of the rejected each (100)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--count", action="store_true", help="ask nobody, only count what was answered")
    add_options(parser)
    arguments = parser.parse_args(argv)
    with errors_in_one_line(FOLDER):
        audit(arguments)


if __name__ == "__main__":
    main()

"""A person as judge: what may stand in params.yaml, and verdicts from the answers that are there. It waits for nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from vlm_itl.core.coco import by_image
from vlm_itl.core.errors import UserError
from vlm_itl.core.fields import Probability
from vlm_itl.judges.base import Judge, Judged, Task
from vlm_itl.judges.rendering import Render
from vlm_itl.judges.verdict import Verdict

if TYPE_CHECKING:
    from vlm_itl.judges.person.answers import Answer, Standing
    from vlm_itl.judges.person.items import Case


class PersonJudge(Judge):
    """People, who look at the proposals in a browser (`make review`, docs/guides/people.md)."""

    label: ClassVar[str] = "person"

    kind: Literal["person"]
    unit: Literal["image", "instance"] = "image"
    """What is decided on: the image as a whole, or each mask and then whether anything is missing."""
    render: Render = Field(default_factory=Render)
    """What the pictures look like, as for a VLM."""
    probes: Probability = 0.1
    """Images with a known answer that are mixed in, as a share of the images; where there are probes and the judge is in `probed`."""
    repeats: Probability = 0.1
    """Images that a reviewer is asked about again, at the earliest 20 decisions later, as a share of theirs: do people agree with
    themselves?"""
    overlap: Probability = 0.1
    """Share of the images that every reviewer is asked about, though another has answered: do people agree with each other?"""

    @property
    def whose_time(self) -> Literal["human", "model", "none"]:
        return "human"

    def judge(self, task: Task) -> Judged:
        """Verdicts from `answers.jsonl` in the judge's folder.

        Raises:
            UserError: images of a run are open, or the file is damaged. Without a run, as of probes, an open image is one not asked about.
        """
        from vlm_itl.judges.person.answers import FILE, Answers
        from vlm_itl.judges.person.items import VERSION, cases

        standing = Answers(task.folder / FILE).standing
        found = {case.image["id"]: decided(case, standing) for case in cases(task.pool, task.proposals, task.images, self)}
        answers = {i: one for i, one in found.items() if one is not None}
        if len(answers) < len(found) and task.run is not None:
            raise UserError(
                f"{task.folder.name}: {len(found) - len(answers):,} of {len(found):,} images are open: make review RUN={task.run}"
            )
        shown = by_image(task.proposals)
        verdicts = [
            answers.get(i) or Verdict(i, len(shown.get(i, [])), False, self.whose_time, False)
            for i in sorted(image["id"] for image in task.pool["images"])
        ]
        identity = {**self.model_dump(), "question": VERSION}
        return Judged(verdicts, identity, {"questions": sum(v.decisions for v in verdicts if v.asked)})


def decided(case: Case, standing: Standing) -> Verdict | None:
    """The verdict of one image; None where an answer to it is open."""
    i, number, keys = case.image["id"], len(case.shown), case.keys
    said = [standing.verdict(key) for key in keys]
    if not all(said):
        return None
    if case.judge.unit == "image":
        return _verdict(i, number, said[0])
    accepted = [answer is not None and answer.decision == "yes" for answer in said]
    more: dict[str, Any] = {"accepted": accepted, "questions": len(set(keys))}
    rest = case.rest(accepted)
    if rest is None:
        return Verdict(i, number, True, "human", False, reason="no proposal accepted", **more)
    more["questions"] += 1
    return _verdict(i, number, standing.verdict(rest[0]), **more)


def _verdict(image_id: int, proposals: int, said: Answer | None, **more: Any) -> Verdict | None:
    return None if said is None else Verdict(image_id, proposals, True, "human", said.decision == "yes", reason=said.reason, **more)

"""The whole of `params.yaml`, and what no single line of it shows."""

from __future__ import annotations

import itertools
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vlm_itl.core.fields import Model, Name, Seed
from vlm_itl.core.runs import arm_of, chain
from vlm_itl.judges.vlm.settings import VlmJudge, is_model_of
from vlm_itl.registry import POLICIES
from vlm_itl.settings.data import Data, Select, Split
from vlm_itl.settings.detector import Detector, Predict, Training
from vlm_itl.settings.evaluation import Compare, Evaluate
from vlm_itl.settings.judges import Judge
from vlm_itl.settings.probes import Calibration, HoldBack, Probes, Verifier
from vlm_itl.settings.report import Gallery, Report
from vlm_itl.settings.runs import Run
from vlm_itl.settings.teachers import AutoLabel, Results

if TYPE_CHECKING:
    from vlm_itl.loop.policy import Policy


class Settings(Model):
    """The whole of `params.yaml`."""

    seed: Seed
    """Seed of training and of simulated judges. Data and split have their own, so that a sweep keeps the test set."""
    processor: Literal["avx2", "native"] = "avx2"
    """What CPUs compute with: the same everywhere (`avx2`), or all they have (docs/method.md)."""
    data: Data
    """Where the pictures come from."""
    select: Select
    """Which images take part. The defaults are the first study's rules."""
    split: Split
    """Which training images are for validation, and which are labelled at the start."""
    detector: Detector
    """What finds the masks."""
    pretrain: Training
    """How the detector trains on the initial labels."""
    train: Training
    """How each run trains it further."""
    predict: Predict
    """What the detector proposes."""
    autolabels: dict[Name, AutoLabel] = Field(default_factory=dict)
    """Starts without labels: foundation models draw the first proposals. By the name of the start."""
    judges: dict[Name, Judge]
    """Who approves or rejects the proposals. By the judge's name."""
    runs: dict[Name, Run]
    """One line an iteration. By the run's name."""
    probes: Probes = Field(default_factory=Probes)
    """Questions with known answers, made from initial labels that no verifier has trained on."""
    probed: list[Name] = Field(default_factory=list)
    """Names of the judges that are asked the probes."""
    hold_back: HoldBack = Field(default_factory=HoldBack)
    """Which initial images judges are measured on, and on which a detector makes mistakes for verifiers to learn from."""
    verifiers: dict[Name, Verifier] = Field(default_factory=dict)
    """Judges that learn. By the judge that is trained, whose model is `judges/<judge>/model`."""
    calibrations: dict[Name, Calibration] = Field(default_factory=dict)
    """Which judge takes its thresholds from whose answers. By the judge that gets them."""
    people: list[Name] = Field(default_factory=list)
    """Names of judges of kind `person` who are measured: seconds a decision, agreement, probes."""
    evaluate: Evaluate
    """What counts as right, and what a person's time is worth."""
    compare: Compare = Field(default_factory=Compare)
    """Arms against the reference arm: intervals over test images, and non-inferiority."""
    gallery: Gallery = Field(default_factory=Gallery)
    """The page of pictures that a run's judge decided on, by whether it was right."""
    report: Report = Field(default_factory=Report)
    """Other prices under which the figures show the arms."""

    def check_runs(self) -> tuple[str, str] | None:
        """The first (key, problem) in `autolabels`, `runs` and `probed` that no single line shows, or None."""
        for name, teacher in self.autolabels.items():
            if name == "start" or name in self.runs:
                return f"autolabels.{name}", f"'{name}' is the name of another start or run; choose another"
            captions = () if isinstance(teacher, Results) else teacher.captions
            if unknown := [f"'{wanted}'" for wanted in captions if wanted not in self.select.categories]:
                return f"autolabels.{name}.captions", f"no class {', '.join(unknown)} in select.categories"
        starts = ["start", *self.autolabels]
        known = f"(there are: {', '.join(self.judges)})"
        for name in self.probed:
            if name not in self.judges:
                return "probed", f"no judge '{name}' in judges {known}"
        for name, verifier in self.verifiers.items():
            for key, needed in ((f"verifiers.{name}", name), (f"verifiers.{name}.base", verifier.base)):
                if not isinstance(self.judges.get(needed), VlmJudge):
                    return key, f"no judge '{needed}' of kind vlm in judges {known}"
            if verifier.base == name:
                return f"verifiers.{name}.base", "a judge cannot start from itself; name the one whose model it starts from"
        for name in self.people:
            if name not in self.judges or self.judges[name].kind != "person":
                return "people", f"no judge '{name}' of kind person in judges {known}"
        if self.evaluate.seconds.verify == "measured" and not self.people:
            return "evaluate.seconds.verify", "measured, but people names nobody; name a judge of kind person, or give seconds"
        for name, calibration in self.calibrations.items():
            if name not in self.judges:
                return f"calibrations.{name}", f"no judge '{name}' in judges {known}"
            if calibration.probed not in self.probed or calibration.probed == name:
                return f"calibrations.{name}.probed", f"'{calibration.probed}' has to be another judge, and in probed"
        for name, run in self.runs.items():
            if name == "start":
                return "runs.start", "'start' is the name of the model every arm begins from; choose another"
            if run.judge not in self.judges:
                return (
                    f"runs.{name}.judge",
                    f"no judge '{run.judge}' in judges {known}; add it there, a person as `person: {{kind: person}}`",
                )
            judge = self.judges[run.judge]
            if isinstance(judge, VlmJudge) and judge.calibrated and run.judge not in self.calibrations:
                return f"runs.{name}.judge", f"'{run.judge}' is calibrated, so calibrations needs a line {run.judge}: {{probed: ...}}"
            policy: type[Policy] = resolve_name(POLICIES[run.policy])
            if run.drawn_by == "people" and not policy.draws:
                return f"runs.{name}.drawn_by", f"under the policy '{run.policy}' nobody draws; leave it out, or take policy: annotate"
            if run.prev not in starts and run.prev not in self.runs:
                return f"runs.{name}.prev", f"no run '{run.prev}' in runs (there are: {', '.join([*starts, *self.runs])})"
        asked = {run.judge: f"runs.{name}.judge" for name, run in self.runs.items()} | dict.fromkeys(self.probed, "probed")
        for name, key in (asked | {verifier.base: f"verifiers.{name}.base" for name, verifier in self.verifiers.items()}).items():
            judge = self.judges[name]
            for trained in self.verifiers:
                # of another folder than its own DVC knows through the calibration alone, which says which model it was fitted on
                if isinstance(judge, VlmJudge) and is_model_of(trained, judge.model) and name != trained and not judge.calibrated:
                    return (
                        key,
                        f"'{name}' has the model that the verifier '{trained}' becomes, and DVC would not wait for it; name '{trained}'",
                    )
        if self.compare.reference not in self.judges:
            return "compare.reference", f"no judge '{self.compare.reference}' in judges (there are: {', '.join(self.judges)})"
        if not self.judges[self.compare.reference].takes_part:
            return "compare.reference", f"the judge '{self.compare.reference}' looks at nothing, so no arm can be held against it"
        if self.compare.negative_control is not None and self.compare.negative_control not in self.judges:
            return "compare.negative_control", f"no judge '{self.compare.negative_control}' in judges {known}; null: no such control"
        for name in self.runs:
            seen, current = {name}, self.runs[name].prev
            while current not in starts:
                if current in seen:
                    return f"runs.{name}.prev", f"the chain never reaches start: it comes back to '{current}'"
                seen.add(current)
                current = self.runs[current].prev
        for one, other in itertools.combinations(self.runs, 2):
            of = arm_of(one, self.runs[one].arm)
            if of == arm_of(other, self.runs[other].arm) and one not in chain(self.runs, other) and other not in chain(self.runs, one):
                problem = f"'{one}' and '{other}' would both be of the arm '{of}', and neither continues the other; give one another"
                return f"runs.{other}.arm", problem
        return None

"""The sections `hold_back`, `verifiers`, `probed`, `probes` and `calibrations`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from vlm_itl.core.fields import Model, Name, Probability, Seed, Steps


class Prices(Model):
    """What an error of a judge, and asking a person instead, costs, in any one unit."""

    wrong_approval: Annotated[float, Field(ge=0)] = 5
    needless_rejection: Annotated[float, Field(ge=0)] = 1
    question: Annotated[float, Field(ge=0)] = 0.3  # to a person, who is always right


class Probes(Model):
    """Questions with known answers, made from initial labels that no verifier has trained on, for the judges in `probed`."""

    per_kind: Annotated[int, Field(ge=1)] = 40  # images of each kind of change
    seed: Seed = 0
    prices: Prices = Field(default_factory=Prices)
    consistency: Annotated[int, Field(ge=0)] = 40  # images, over all kinds, that a VLM is asked about again in other ways


class Lora(Model):
    """Low-rank adapters (Hu et al., ICLR 2022) instead of all weights: for models that do not fit otherwise."""

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32  # the adapters' output is scaled by alpha / rank


class HoldBack(Model):
    """Which initial images judges are measured on, and on which a detector makes mistakes for verifiers to learn from."""

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of the initial images, for probes; no verifier trains on them
    mistakes: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of them, which a detector trained on the others has not seen
    seed: Seed = 0

    @model_validator(mode="after")
    def _leaves_some(self) -> HoldBack:
        if self.held_out + self.mistakes >= 1:
            raise ValueError("held_out and mistakes leave no image to train on")
        return self


class Verifier(Model):
    """How a judge learns from the initial labels. Its pictures, prompt and options are those of the judge of that name."""

    base: Name  # the judge whose model it starts from
    steps: Steps = 200  # of the optimiser
    batch_size: Annotated[int, Field(ge=2)] = 32  # examples
    accumulate: Annotated[int, Field(ge=1)] = 1  # parts of a batch that are computed one after the other, to save memory
    learning_rate: Annotated[float, Field(gt=0)] = 0.00015
    masks: Probability = 0.6  # of the examples: about one mask; the others ask whether anything is missing
    detector: Probability = 0.3  # of the examples about a mask: the detector's own
    lora: Lora | None = None
    seed: Seed = 0  # of the examples

    @model_validator(mode="after")
    def _fits(self) -> Verifier:
        if self.batch_size % self.accumulate:
            raise ValueError("batch_size is no multiple of accumulate")
        return self


class Calibration(Model):
    """A judge with the thresholds that another one's answers to the probes give it."""

    probed: Name  # whose answers

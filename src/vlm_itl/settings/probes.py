"""The sections `hold_back`, `verifiers`, `probed`, `probes` and `calibrations`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from vlm_itl.core.fields import Model, Name, Probability, Seed, Steps


class Prices(Model):
    """What an error of a judge, and asking a person instead, costs, in any one unit."""

    wrong_approval: Annotated[float, Field(ge=0)] = 5
    """Cost of approving what is wrong."""
    needless_rejection: Annotated[float, Field(ge=0)] = 1
    """Cost of rejecting what is right."""
    question: Annotated[float, Field(ge=0)] = 0.3
    """Cost of a question to a person, who is always right."""


class Probes(Model):
    """Questions with known answers, made from initial labels that no verifier has trained on, for the judges in `probed`."""

    per_kind: Annotated[int, Field(ge=1)] = 40
    """Images of each kind of change."""
    seed: Seed = 0
    """Seed of the changes."""
    prices: Prices = Field(default_factory=Prices)
    """What errors cost."""
    consistency: Annotated[int, Field(ge=0)] = 40
    """Images, over all kinds, that a VLM is asked about again in other ways."""


class Lora(Model):
    """Low-rank adapters (Hu et al., ICLR 2022) instead of all weights: for models that do not fit otherwise."""

    rank: Annotated[int, Field(ge=1)] = 16
    """Rank of the adapters."""
    alpha: Annotated[int, Field(ge=1)] = 32
    """The adapters' output is scaled by `alpha` / `rank`."""


class HoldBack(Model):
    """Which initial images judges are measured on, and on which a detector makes mistakes for verifiers to learn from."""

    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the initial images for probes; no verifier trains on them."""
    mistakes: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the initial images that a detector trained on the others has not seen."""
    seed: Seed = 0
    """Seed that divides the images."""

    @model_validator(mode="after")
    def _leaves_some(self) -> HoldBack:
        if self.held_out + self.mistakes >= 1:
            raise ValueError("held_out and mistakes leave no image to train on")
        return self


class Verifier(Model):
    """How a judge learns from the initial labels. Its pictures, prompt and options are those of the judge of that name."""

    base: Name
    """The judge whose model it starts from."""
    steps: Steps = 200
    """Steps of the optimiser."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Examples a step."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Parts of a batch that are computed one after the other, to save memory."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.00015
    """Learning rate of the optimiser."""
    masks: Probability = 0.6
    """Share of the examples that ask about one mask; the others ask whether anything is missing."""
    detector: Probability = 0.3
    """Share of the examples about a mask that show the detector's own."""
    lora: Lora | None = None
    """Low-rank adapters instead of all weights, for models that do not fit otherwise. null: all weights."""
    seed: Seed = 0
    """Seed of the examples."""

    @model_validator(mode="after")
    def _fits(self) -> Verifier:
        if self.batch_size % self.accumulate:
            raise ValueError("batch_size is no multiple of accumulate")
        return self


class Calibration(Model):
    """A judge with the thresholds that another one's answers to the probes give it."""

    probed: Name
    """The judge whose answers give the thresholds."""

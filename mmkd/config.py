"""Configuration of a trial: everything that decides its numbers, frozen, validated, JSON both ways, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from mmkd.errors import UserError
from mmkd.schema import Frozen, explain, omit_defaults

ALGORITHM_VERSION = 2
"""Increase it when the same configuration would give other numbers: old rows are then other rows.

Since 2, methods and augmentation have separate random streams, and clipping is relative to alpha.
"""

INCIDENTAL = {
    "data": {"path"},
    "threads": True,
    "device": True,
    "split": {"scheme", "folds", "valid_groups", "seed", "replicate"},
}
"""Keys of config.json that are not in the identity of a teacher or a row: those that depend on the machine, and how a
split was drawn, because its digest already stands for the samples of its parts."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["fp32", "bf16"]
Scheme = Literal["file", "group-folds", "resample-valid"]


class Dropout(Frozen):
    """Dropout probabilities; dropout on attention weights forgoes the fused attention kernel on CPU.

    `attention_from` overrides `attention` in stacks whose keys come from the modality that it names,
    `attention_fusion` in those of the second stage.
    """

    embedding: Fraction = 0.1
    attention: Fraction = 0.0
    attention_from: dict[str, Fraction] = {}
    attention_fusion: Fraction | None = None
    residual: Fraction = 0.1
    relu: Fraction = 0.1
    output: Fraction = 0.1

    def in_stack(self, source: str | None) -> Dropout:
        """Return the dropout of a stack with keys from `source`; None: of a second-stage stack."""
        own = self.attention_fusion if source is None else self.attention_from.get(source)
        return self if own is None else self.model_copy(update={"attention": own})

    @model_serializer(mode="wrap")
    def _omit_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return omit_defaults(self, serialize, "attention_from", "attention_fusion")


class Network(Frozen):
    """Sizes of a teacher or a student; see `mmkd.models.network`.

    `fusion_layers` counts where two stages exist (teachers, students of the pairings `complete` and `multimodal`);
    `kernels` overrides the width of a modality's own Conv1d; `head` is `plain` (W3 relu(W1 h)) or MulT's `residual`
    (W3 (W2 relu(W1 h) + h)). `self_attention`, of stacks whose keys and queries are one sequence (the second stage, and
    p<-p in students): keys stay at the stage's input (`fixed`), or follow x through the layers (`updated`, MulT's).
    """

    width: Count = 32
    heads: Count = 8
    layers: Count = 4
    fusion_layers: Count = 4
    kernel: Count = 3
    kernels: dict[str, Count] = {}
    conv_bias: bool = True
    head: Literal["plain", "residual"] = "plain"
    readout: Literal["last", "mean"] = "last"
    mask: Literal["none", "mult"] = "none"
    self_attention: Literal["fixed", "updated"] = "fixed"
    dropout: Dropout = Dropout()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Network:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        return self

    @model_serializer(mode="wrap")
    def _omit_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return omit_defaults(self, serialize, "self_attention")


class Augmentation(Frozen):
    """Random changes of training batches, in standardised units; see `mmkd.training.augmentation`.

    `crop`, `warp` change time (shares of the duration); `rotation` is in radians; `scale`, `shift` and `noise` are
    standard deviations.
    """

    crop: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    warp: Fraction = 0.0
    rotation: Annotated[float, Field(ge=0)] = 0.0
    scale: Annotated[float, Field(ge=0)] = 0.0
    shift: Annotated[float, Field(ge=0)] = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0


class Training(Frozen):
    """Training recipe of a network. The defaults are the paper's (A.3) where it gives them, else MulT's.

    `held_out` is the share of each class of train that is kept from training: MSD's learned weights are judged on it,
    and the controls beside them must do without it; see `mmkd.data.hold_out.hold_out`. `clip` is the largest norm of
    the network's gradient at alpha = 1, see `mmkd.training.trainer.clip_norm`. `precision` is that of forward passes in
    training, see `mmkd.models.network.autocast`; evaluation is in float32.
    """

    epochs: Count = 100
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["plateau", "cosine"] = "plateau"
    patience: Count = 10
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    clip: Positive = 1.0
    label_smoothing: Fraction = 0.0
    held_out: Fraction = 0.0
    augmentation: Augmentation = Augmentation()
    precision: Precision = "fp32"

    @model_serializer(mode="wrap")
    def _omit_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return omit_defaults(self, serialize, "precision")


class DataSource(Frozen):
    """A data set: its current path, and the fingerprint of its content."""

    path: str
    fingerprint: str


class SplitSettings(Frozen):
    """Division of the samples into train, valid and test; see `mmkd.data.splits`.

    `file` keeps the file's own parts. `group-folds` tests on `folds` sets of groups in turn (default: one group per
    fold for up to 12 groups, otherwise 5 folds). `resample-valid` keeps the file's test part. Both draw `valid_groups`
    groups for validation (default: a sixth of the groups outside test, at least 1). `seed` decides all draws.
    """

    scheme: Scheme = "file"
    folds: Annotated[int, Field(ge=2)] | None = None
    valid_groups: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _settings_belong_to_scheme(self) -> SplitSettings:
        if self.folds is not None and self.scheme != "group-folds":
            raise ValueError(f"folds = {self.folds} needs scheme = 'group-folds' (is {self.scheme!r})")
        if self.valid_groups is not None and self.scheme == "file":
            raise ValueError(f"valid_groups = {self.valid_groups} needs a scheme that draws (is 'file')")
        return self


SEEDS_PER_REPLICATE = 10_000
"""Seed s of replicate r is r times this plus s in configurations."""


class DrawnSplit(SplitSettings):
    """The split of one replicate: how to draw it again, and the digest that the drawn one must have."""

    replicate: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _file_draws_nothing(self) -> DrawnSplit:
        if self.scheme == "file":
            raise ValueError("scheme = 'file' draws nothing; leave the split out")
        return self


class Run(Frozen):
    """Keys that the trials of teachers and students share. `split` is None where the file's own parts are used."""

    algorithm: int = ALGORITHM_VERSION
    data: DataSource
    split: DrawnSplit | None = None
    network: Network
    training: Training
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    evaluate_test: bool = False
    threads: Count = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_serializer(mode="wrap")
    def _omit_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return omit_defaults(self, serialize, "split")


class TeacherConfig(Run):
    """A teacher: `branch` names the modality whose queries alone are used, None is the complete teacher.

    `tuned_from` is the `recipe_digest` of the recipe that a tuned teacher began with, "" of others.
    """

    role: Literal["teacher"] = "teacher"
    branch: str | None = None
    tuned_from: Annotated[str, Field(pattern="^([0-9a-f]{16})?$")] = ""

    @model_serializer(mode="wrap")
    def _omit_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return omit_defaults(self, serialize, "split", "tuned_from")


class Distillation(Frozen):
    """Loss = alpha L_c + beta L_KD (Eq. 1), and the method that computes L_KD; `settings` belong to it."""

    method: str
    level: str | None = None
    settings: dict[str, Any] = {}
    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    beta: Annotated[float, Field(ge=0, le=1)] = 1.0
    temperature: Positive = 1.0


class StudentConfig(Run):
    """A student, of `primary` alone except for pairing `multimodal`, whose student reads all modalities.

    `teacher` is absent if the method needs none.
    """

    role: Literal["student"] = "student"
    primary: str
    pairing: str
    distillation: Distillation
    teacher: TeacherConfig | None = None

    @model_validator(mode="after")
    def _teacher_has_the_same_split(self) -> StudentConfig:
        if self.teacher is not None and digest_of(self.teacher.split) != digest_of(self.split):
            raise ValueError("the teacher's split is not the student's: it may have learnt from the test samples")
        return self


TrialConfig = Annotated[TeacherConfig | StudentConfig, Field(discriminator="role")]
_adapter: TypeAdapter[TeacherConfig | StudentConfig] = TypeAdapter(TrialConfig)


def digest(value: Any) -> str:
    """64 hex digits that two JSON values share only if they are equal, whatever the order of their keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def digest_of(split: DrawnSplit | None) -> str:
    """The digest of a drawn split; "" for the file's own parts."""
    return "" if split is None else split.digest


def recipe_digest(fingerprint: str, teacher: Mapping[str, Any]) -> str:
    """16 hex digits of a teacher's data, branch, network and training, from JSON values as in a configuration."""
    return digest([fingerprint, *(teacher.get(key) for key in ("branch", "network", "training"))])[:16]


def derived_seed(*parts: Any) -> int:
    """A seed below 2^32 that depends on each of `parts` (JSON values), and on nothing else."""
    return int(digest(parts)[:8], 16)


def identity(config: Run) -> str:
    """Hash of everything that decides a run's numbers: all but the keys of `INCIDENTAL`."""
    exclude: Any = INCIDENTAL | ({"teacher": INCIDENTAL} if isinstance(config, StudentConfig) else {})
    return digest(config.model_dump(mode="json", exclude=exclude))


def to_json(config: Run) -> dict[str, Any]:
    """`config` as plain JSON values; `from_json` reads it back equal."""
    return config.model_dump(mode="json")


def from_json(value: Any, origin: Path | str) -> TeacherConfig | StudentConfig:
    """Validate the configuration in `value`, which was read from `origin`, of this or an earlier algorithm version.

    Raises:
        UserError: naming `origin`, the key, the value and what is allowed.
    """
    try:
        config = _adapter.validate_python(value)
    except ValidationError as error:
        raise UserError(explain(error, origin)) from None
    if not 1 <= config.algorithm <= ALGORITHM_VERSION:
        raise UserError(f"{_other_version(config, origin)}; read it with the mmkd that made it")
    return config


def check_version(config: Run, origin: Path | str) -> None:
    """Check that training the configuration gives the numbers that were meant.

    Raises:
        UserError: it was made by another algorithm version.
    """
    if config.algorithm != ALGORITHM_VERSION:
        raise UserError(
            f"{_other_version(config, origin)}; finish it with the mmkd that began it, or launch again for a new row"
        )


def _other_version(config: Run, origin: Path | str) -> str:
    return f"{origin}: made by algorithm version {config.algorithm}, this is version {ALGORITHM_VERSION}"

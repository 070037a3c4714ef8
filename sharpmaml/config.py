"""Everything that decides a training run, in one frozen record; TOML in and out."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpmaml.inner import InnerLoop

_COUNTS = (
    "iterations", "meta_batch", "ways", "shots", "queries", "channels",
    "checkpoint_every", "validate_every", "validation_episodes",
)  # fmt: skip

METHODS = ("maml", "fomaml", "sharp-low", "sharp-up", "sharp-both")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the same settings and seed give the same numbers.

    Attributes:
        method: ``maml``, ``fomaml``, ``sharp-low``, ``sharp-up`` or ``sharp-both``; it says which of the
            two radii below are used.
        data: ``strokes``, ``glyphs``, ``omniglot`` or ``sinusoid``.
        data_root: folder or file of the data set, where it needs one.
        data_options: options of the data set, such as ``split="vinyals"`` for Omniglot.
        ways: classes in an episode (N-way); ignored by ``sinusoid``.
        shots: support examples of a class (K-shot).
        queries: query examples of a class.
        iterations: meta-updates to reach.
        meta_batch: tasks in a meta-update.
        inner_steps: adaptation steps in training.
        test_steps: adaptation steps in validation, test and analysis.
        inner_rate: learning rate of the adaptation, β_low.
        meta_rate: learning rate of Adam in the outer loop, β_up.
        alpha_low: radius of the ascent in the inner loop, for ``sharp-low`` and ``sharp-both``.
        alpha_up: radius of the ascent in the meta-update, for ``sharp-up`` and ``sharp-both``.
        eps_grad: ``detach`` holds the inner ascent constant in the meta-gradient, ``through``
            differentiates it.
        perturbation: ``sam`` or ``asam``.
        model: ``auto`` (conv4 for images, mlp for sinusoids), ``conv4`` or ``mlp``.
        channels: channels of conv4 (32 when left out), or hidden width of mlp (40).
        downsample: how conv4 halves the image, ``max`` (pooling) or ``stride`` (Finn et al. on Omniglot).
        seed: of the initial weights and of all episodes.
        checkpoint_every: meta-updates between checkpoints.
        validate_every: meta-updates between validations.
        validation_episodes: episodes of a validation.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32`` or ``float64``.
    """

    method: str = "maml"
    data: str = "strokes"
    data_root: str | None = None
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ways: int = 5
    shots: int = 1
    queries: int = 5
    iterations: int = 1000
    meta_batch: int = 4
    inner_steps: int = 1
    test_steps: int = 3
    inner_rate: float = 0.4
    meta_rate: float = 1e-3
    alpha_low: float = 0.05
    alpha_up: float = 0.05
    eps_grad: str = "detach"
    perturbation: str = "sam"
    model: str = "auto"
    channels: int | None = None
    downsample: str = "max"
    seed: int = 0
    checkpoint_every: int = 500
    validate_every: int = 500
    validation_episodes: int = 100
    device: str = "auto"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"unknown method {self.method!r}: expected one of {', '.join(METHODS)}"
            )
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype is {self.dtype!r}: expected float32 or float64")
        for name in _COUNTS:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        for name in ("inner_rate", "meta_rate", "alpha_low", "alpha_up"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 0")
        self.inner()  # raises on settings of the inner loop that do not exist

    @property
    def lower(self) -> float:
        """Radius of the ascent in the inner loop that this method uses."""
        return self.alpha_low if self.method in ("sharp-low", "sharp-both") else 0.0

    @property
    def upper(self) -> float:
        """Radius of the ascent in the meta-update that this method uses."""
        return self.alpha_up if self.method in ("sharp-up", "sharp-both") else 0.0

    def inner(self) -> InnerLoop:
        """The inner loop of training."""
        return InnerLoop(
            steps=self.inner_steps,
            rate=self.inner_rate,
            lower=self.lower,
            eps_grad=self.eps_grad,
            first_order=self.method == "fomaml",
            perturbation=self.perturbation,
        )

    def test_inner(self) -> InnerLoop:
        """The inner loop of validation, test and analysis: plain steps, whatever the method."""
        return InnerLoop(steps=self.test_steps, rate=self.inner_rate)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "data_options": dict(self.data_options)}

    def to_toml(self) -> str:
        """TOML text that `from_toml` reads back."""
        lines = []
        for name, value in self.to_dict().items():
            if value is None or isinstance(value, dict):
                continue
            lines.append(f"{name} = {_toml(value)}")
        if self.data_options:
            lines += ["", "[data_options]"]
            lines += [f"{name} = {_toml(value)}" for name, value in self.data_options.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Settings from plain values.

        Raises:
            ValueError: a name that is no setting, or a value of the wrong type.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise ValueError(
                f"unknown setting {unknown[0]!r}: expected some of {', '.join(sorted(fields))}"
            )
        for name, value in values.items():
            default = getattr(cls, name, None)
            wanted: tuple[type, ...] = {
                bool: (bool,),
                int: (int,),
                float: (int, float),
                str: (str,),
            }.get(type(default), (object,))
            if not isinstance(value, wanted) or (
                isinstance(value, bool) and bool not in (*wanted, object)
            ):
                raise ValueError(
                    f"setting {name} is {value!r}: expected {' or '.join(t.__name__ for t in wanted)}"
                )
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Settings from a TOML file; what it leaves out keeps its default.

        Raises:
            ValueError: the file is missing, is no TOML, or names an unknown setting.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            return cls.from_dict(tomllib.loads(text))
        except OSError as error:
            raise ValueError(f"cannot read the settings {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not TOML: {error}") from None


def _toml(value: str | bool | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)

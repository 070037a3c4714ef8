"""Everything that decides a training run, in one frozen record; TOML in and out."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from landscape.wording import one_line, printable
from sharpmaml.inner import InnerLoop

_LARGEST = 1 << 20  # bytes of a file of settings
_COUNTS = (
    "iterations", "meta_batch", "ways", "shots", "queries", "channels",
    "checkpoint_every", "validate_every", "validation_episodes", "solver_steps", "ascent_every",
)  # fmt: skip
_AMOUNTS = (
    "inner_steps", "test_steps", "inner_rate", "meta_rate", "alpha_low", "alpha_up", "proximal", "multi_step",
    "tasks_at_once", "clip_norm", "clip_value", "patience", "label_noise", "ascent_reuse",
)  # fmt: skip

METHODS: Mapping[str, Mapping[str, Any]] = {
    "maml": {},
    "fomaml": {},
    "sharp-low": {},
    "sharp-up": {},
    "sharp-both": {},
    "anil": {"adapted": "head"},
    "meta-sgd": {"rates": "parameter"},
    "maml++": {"rates": "layer", "multi_step": 5000},
    "reptile": {"estimator": "reptile"},
    "imaml": {"estimator": "implicit", "proximal": 2.0},
}
"""Methods, and the settings that each stands for; all other settings may be combined with any of them."""

ADAPTED = ("all", "head", "body")
RATES = ("fixed", "parameter", "layer")
ASCENT_GRADIENTS = ("full", "first-order", "momentum")
_TYPES: Mapping[Any, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
    "Mapping[str, Any]": (Mapping,),
}
_PLAIN = {
    "adapted": "all",
    "rates": "fixed",
    "estimator": "unrolled",
    "proximal": 0.0,
    "multi_step": 0,
}
_CHOICES = {
    "adapted": ADAPTED,
    "rates": RATES,
    "estimator": ("unrolled", "implicit", "reptile"),
    "ascent_gradient": ASCENT_GRADIENTS,
    "ascent_part": ADAPTED,
    "eps_m": ("recompute", "reuse"),
    "reduction": ("mean", "sum"),
    "optimizer": ("adam", "sgd"),
    "schedule": ("constant", "cosine"),
    "precision": ("same", "bfloat16"),
    "dtype": ("float32", "float64"),
    "executor": ("auto", "measure", "loop", "vmap", "adjoint", "stacked", "compile"),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the same settings and seed give the same numbers.

    Attributes:
        method: ``maml``, ``fomaml``, ``sharp-low``, ``sharp-up``, ``sharp-both``, ``anil``, ``meta-sgd``,
            ``maml++``, ``reptile`` or ``imaml``; it says which of the two radii are used, and what the
            settings that are left out stand for.
        data: ``strokes``, ``glyphs``, ``omniglot``, ``sinusoid``, ``miniimagenet``, ``cifarfs`` or
            ``folder`` (any images).
        data_root: folder or file of the data set, where it needs one.
        data_options: options of the data set: ``split="vinyals"`` of Omniglot, ``image_size=42`` of
            photographs; on the command line ``--data-options.image_size 42``.
        ways: classes in an episode (N-way); ignored by ``sinusoid``.
        shots: support examples of a class (K-shot).
        queries: query examples of a class.
        iterations: meta-updates to reach.
        meta_batch: tasks in a meta-update.
        inner_steps: adaptation steps in training.
        test_steps: adaptation steps in validation, test and analysis.
        inner_rate: learning rate of the adaptation, β_low.
        meta_rate: learning rate of the meta-update, β_up.
        alpha_low: radius of the ascent in the inner loop, for ``sharp-low`` and ``sharp-both``.
        alpha_up: radius of the ascent in the meta-update, for ``sharp-up`` and ``sharp-both``.
        eps_grad: ``detach`` holds the inner ascent constant in the meta-gradient, ``through``
            differentiates it.
        perturbation: ``sam`` or ``asam``.
        eps_m: in ``sharp-both``, ``recompute`` the inner ascents at the perturbed point (the released
            code) or ``reuse`` those of the point itself (the paper).
        adapt_norm_affine: whether scale and shift of norm layers are adapted (and perturbed) in the inner
            loop.
        sam_at_test: whether validation, test and analysis adapt with the lower ascent too.
        reduction: the meta-gradient is the ``mean`` over tasks, or their ``sum``.
        adapted: ``all`` parameters, the ``head`` alone (ANIL) or the ``body`` (BOIL).
        rates: inner rates ``fixed``, or learned for each ``parameter`` (Meta-SGD) or for each ``layer``
            tensor and step (MAML++).
        estimator: meta-gradient: ``unrolled``, ``implicit`` (iMAML) or ``reptile``.
        proximal: weight of the pull of the inner loop back to the initialization (iMAML's λ).
        solver_steps: conjugate gradient steps of iMAML.
        multi_step: meta-updates over which the loss after every inner step fades into that after the last
            (MAML++); 0: the last alone.
        ascent_gradient: direction of the upper ascent: ``full`` meta-gradient, ``first-order``, or the
            ``momentum`` of earlier ones (no pass of its own).
        ascent_every: take the upper ascent at every so many meta-updates only (LookSAM).
        ascent_reuse: share of the last ascent's sharpness direction that is added in between (LookSAM's
            α); 0 makes them plain MAML.
        ascent_part: parameters that the upper ascent moves: ``all``, ``head`` or ``body``.
        executor: ``auto``, ``loop``, ``vmap``, ``adjoint``, ``stacked`` or ``compile``; ``measure`` times them
            on the first meta-batch and takes the fastest.
        tasks_at_once: tasks that an executor takes together; 0: as many as fit.
        optimizer: of the meta-update, ``adam`` or ``sgd``.
        schedule: of the meta rate: ``constant``, or ``cosine`` down to 0 after the last meta-update.
        clip_norm: limit of the norm of the meta-gradient; 0: none.
        clip_value: limit of each of its entries (Finn et al. 2017: 10 on mini-ImageNet); 0: none.
        precision: ``same`` as ``dtype``, or ``bfloat16``: forward and backward passes by autocast, with
            parameters and sums as they are.
        patience: stop after so many validations without a better one; 0: never.
        guard: stop a classifier that is stuck at chance, see docs/training.md.
        label_noise: share of the training support labels that are exchanged for a wrong one.
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
    eps_m: str = "recompute"
    adapt_norm_affine: bool = True
    sam_at_test: bool = False
    reduction: str = "mean"
    adapted: str | None = None
    rates: str | None = None
    estimator: str | None = None
    proximal: float | None = None
    solver_steps: int = 5
    multi_step: int | None = None
    ascent_gradient: str = "full"
    ascent_every: int = 1
    ascent_reuse: float = 0.0
    ascent_part: str = "all"
    executor: str = "auto"
    tasks_at_once: int = 0
    optimizer: str = "adam"
    schedule: str = "constant"
    clip_norm: float = 0.0
    clip_value: float = 0.0
    precision: str = "same"
    patience: int = 0
    guard: bool = True
    label_noise: float = 0.0
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
                f"unknown method {_told(self.method)}: expected one of {', '.join(METHODS)}"
            )
        for name, choices in _CHOICES.items():
            value = self.chosen(name)
            if value not in choices:
                raise ValueError(f"{name} is {_told(value)}: expected {' or '.join(choices)}")
        for name in _COUNTS:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        for name in _AMOUNTS:
            if not self.chosen(name) >= 0:
                raise ValueError(f"{name} is {self.chosen(name)}: expected at least 0")
        for name in ("label_noise", "ascent_reuse"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a share of at most 1")
        self.inner()  # raises on settings of the inner loop that do not exist

    def chosen(self, name: str) -> Any:
        """A setting, or what the method stands for where it is left out (``None``).

        >>> TrainConfig(method="anil").chosen("adapted"), TrainConfig().chosen("adapted")
        ('head', 'all')
        """
        value = getattr(self, name)
        return METHODS[self.method].get(name, _PLAIN.get(name)) if value is None else value

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
            proximal=self.chosen("proximal"),
        )

    def test_inner(self, steps: int | None = None) -> InnerLoop:
        """The inner loop of validation, test and analysis: plain steps, unless ``sam_at_test``.

        What is adapted and at which learned rates is not in here: `sharpmaml.checkpoint.Checkpoint.inner`
        knows it.

        Args:
            steps: instead of ``test_steps``.
        """
        lower = self.lower if self.sam_at_test else 0.0
        return InnerLoop(
            steps=self.test_steps if steps is None else steps,
            rate=self.inner_rate,
            lower=lower,
            eps_grad=self.eps_grad if lower else "detach",
            perturbation=self.perturbation if lower else "sam",
            proximal=self.chosen("proximal"),
        )

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
                f"unknown setting {_told(unknown[0])}: expected some of {', '.join(sorted(fields))}"
            )
        for name, value in values.items():
            wanted = _TYPES[fields[name].type]
            if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
                raise ValueError(
                    f"setting {name} is {_told(value)}: expected {' or '.join(t.__name__ for t in wanted)}"
                )
        for name, value in dict(values.get("data_options", {})).items():
            if not isinstance(value, str | int | float | None):
                raise ValueError(
                    f"setting data_options.{printable(name)} is {_told(value)}: expected a number or text"
                )
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainConfig:
        """Settings from a TOML file; what it leaves out keeps its default.

        Raises:
            ValueError: the file is missing, is no TOML, or names an unknown setting.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise ValueError(f"over {_LARGEST} bytes")
            values = tomllib.loads(data.decode("utf-8"))
        except OSError as error:
            raise ValueError(f"cannot read the settings {path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not TOML: {one_line(error)}") from None
        try:
            return cls.from_dict(values)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}: {one_line(error, 1000)}") from None


def _told(value: Any) -> str:
    try:
        return printable(repr(value))
    except RecursionError:
        return f"a {type(value).__name__} within others, too deep to show"


def _toml(value: str | bool | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)

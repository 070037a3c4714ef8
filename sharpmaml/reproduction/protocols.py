"""What is reproduced: experiments, their published settings and numbers, and the smaller size for a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sharpmaml.config import TrainConfig

METHODS = ("maml", "fomaml", "sharp-low", "sharp-up", "sharp-both")
SIZES = ("published", "small")

FINN = "Finn et al. 2017"
QUOTED = "Nichol et al. 2018, as quoted in leopard-ai/betty"
LISTED = "Finn et al. 2017, as listed by Abbas et al. 2022"
ABBAS = "Abbas et al. 2022, revised tables 1 and 2, no intervals"


@dataclass(frozen=True)
class Published:
    """A published score.

    Attributes:
        value: accuracy in percent.
        ci95: half width of its 95 % interval, where one was published.
        source: paper.
    """

    value: float
    ci95: float | None
    source: str


@dataclass(frozen=True)
class Condition:
    """Under what the trained networks are tested, apart from their own test classes.

    Attributes:
        label: in tables and on figures.
        curve: the figure it belongs to.
        shift: name of a domain shift of :func:`sharpmaml.data.make_source`.
        label_noise: share of wrong support labels.
        data: another data set.
    """

    label: str
    curve: str
    shift: str = "none"
    label_noise: float = 0.0
    data: str | None = None


@dataclass(frozen=True)
class Experiment:
    """One column of a published table.

    Attributes:
        key: name in files.
        title: name for people.
        settings: of :class:`sharpmaml.config.TrainConfig`, as published.
        small: what is changed where only a CPU is at hand.
        conditions: shifts and label noise.
        published: method -> its scores; shown only of the complete data set.
        steps: adaptation steps of the score, then others that are reported too.
    """

    key: str
    title: str
    settings: Mapping[str, Any]
    small: Mapping[str, Any] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    published: Mapping[str, tuple[Published, ...]] = field(default_factory=dict)
    steps: tuple[int, ...] = (1,)

    def config(
        self,
        method: str,
        seed: int = 0,
        *,
        size: str = "published",
        iterations: int | None = None,
        alpha: float | None = None,
        data_root: str | None = None,
        device: str = "auto",
        executor: str = "auto",
    ) -> TrainConfig:
        """Settings of one run.

        Args:
            method: one of `METHODS`.
            seed: of weights and episodes, the same ones for every method.
            size: ``published`` or ``small``.
            iterations: instead of the published number.
            alpha: radius of both levels, instead of the experiment's.
            data_root: where the data set lies.
            device: where to train.
            executor: how meta-gradients are computed in training.
        """
        settings = {**self.settings, **(self.small if size == "small" else {})}
        if iterations is not None:
            settings["iterations"] = iterations
        if alpha is not None:
            settings |= {"alpha_low": alpha, "alpha_up": alpha}
        return TrainConfig(
            method=method, seed=seed, data_root=data_root, device=device, executor=executor,
            test_steps=self.steps[0], **settings,
        )  # fmt: skip

    @property
    def iterations(self) -> int:
        """Meta-updates of the published protocol."""
        return int(self.settings["iterations"])


@dataclass(frozen=True)
class Protocol:
    """A data set and its experiments.

    Attributes:
        name: what the command takes.
        data: name of the data set.
        complete: names of :class:`sharpmaml.data.ImageSet` that are the published set; empty for a set
            without images. Published numbers stand beside these alone.
        experiments: the columns.
        source: where the settings are from.
    """

    name: str
    data: str
    complete: tuple[str, ...]
    experiments: tuple[Experiment, ...]
    source: str


def _noise() -> tuple[Condition, ...]:
    return tuple(
        Condition(f"{share:.0%}", "label noise", label_noise=share) for share in (0.2, 0.4)
    )


_TURNED = (
    Condition("rotated by 90°", "other domains", shift="rotate90"),
    Condition("inverted", "other domains", shift="invert"),
)
_DRAWN = (
    *_TURNED,
    Condition("strokes", "other domains", data="strokes"),
    Condition("glyphs", "other domains", data="glyphs"),
    *_noise(),
)

_OMNIGLOT: dict[str, Any] = {
    "data": "omniglot", "shots": 1, "queries": 1, "channels": 64, "downsample": "stride", "iterations": 60_000,
    "alpha_low": 0.05, "alpha_up": 0.05, "checkpoint_every": 2000, "validate_every": 500,
    # As in the paper, characters are split irrespective of alphabet.
    "data_options": {"split": "vinyals"},
}  # fmt: skip
_MINI: dict[str, Any] = {
    "data": "miniimagenet", "ways": 5, "queries": 15, "channels": 32, "inner_steps": 5, "inner_rate": 0.01,
    "iterations": 60_000, "clip_value": 10.0, "alpha_low": 0.0005, "alpha_up": 0.0005,
    "data_options": {"image_size": 84}, "checkpoint_every": 2000, "validate_every": 500,
}  # fmt: skip
_SINE: dict[str, Any] = {
    "data": "sinusoid", "model": "mlp", "channels": 40, "inner_steps": 1, "inner_rate": 0.01, "meta_batch": 25,
    "iterations": 70_000, "alpha_low": 0.005, "alpha_up": 0.005,
    "checkpoint_every": 10_000, "validate_every": 5000,
}  # fmt: skip
_SMALL_OMNIGLOT: dict[str, Any] = {"channels": 32, "queries": 5, "validate_every": 250}
_SMALL_MINI: dict[str, Any] = {
    "data_options": {"image_size": 42}, "queries": 5, "meta_batch": 2, "validate_every": 250,
}  # fmt: skip
_WAVES = (
    Condition("amplitude", "other domains", shift="amplitude"),
    Condition("frequency", "other domains", shift="frequency"),
)


def _abbas(maml: float, low: float, up: float, both: float) -> dict[str, Published]:
    found = {"maml": maml, "sharp-low": low, "sharp-up": up, "sharp-both": both}
    return {method: Published(value, None, ABBAS) for method, value in found.items()}


def _mini_published(
    shots: int, finn: Published, first_order: Published
) -> dict[str, tuple[Published, ...]]:
    theirs = (
        _abbas(47.13, 49.72, 49.56, 50.28) if shots == 1 else _abbas(62.20, 63.18, 63.06, 65.04)
    )
    return {
        "maml": (finn, theirs["maml"]),
        "fomaml": (first_order,),
        **{method: (theirs[method],) for method in ("sharp-low", "sharp-up", "sharp-both")},
    }


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "omniglot",
            "omniglot",
            ("omniglot",),
            (
                Experiment(
                    "5-way-1-shot",
                    "5-way 1-shot",
                    {**_OMNIGLOT, "ways": 5, "meta_batch": 32, "inner_steps": 1, "inner_rate": 0.4},
                    {**_SMALL_OMNIGLOT, "meta_batch": 4},
                    _DRAWN,
                    {
                        "maml": (Published(98.7, 0.4, FINN),),
                        "fomaml": (Published(98.3, None, QUOTED),),
                    },
                    (3,),
                ),
                Experiment(
                    "20-way-1-shot",
                    "20-way 1-shot",
                    {
                        **_OMNIGLOT,
                        "ways": 20,
                        "meta_batch": 16,
                        "inner_steps": 5,
                        "inner_rate": 0.1,
                    },
                    {**_SMALL_OMNIGLOT, "meta_batch": 2},
                    _DRAWN,
                    {
                        "maml": (Published(95.8, 0.3, FINN),),
                        "fomaml": (Published(89.4, None, QUOTED),),
                    },
                    (5,),
                ),
            ),
            "Finn et al. 2017, appendix A.1, and their code; radii: the default of the released Sharp-MAML code",
        ),
        Protocol(
            "miniimagenet",
            "miniimagenet",
            ("miniimagenet", "mini-imagenet"),
            tuple(
                Experiment(
                    f"5-way-{shots}-shot",
                    f"5-way {shots}-shot",
                    {**_MINI, "shots": shots, "meta_batch": batch},
                    _SMALL_MINI,
                    (*_TURNED, *_noise()),
                    _mini_published(shots, finn, first_order),
                    (10,),
                )
                for shots, batch, finn, first_order in (
                    (1, 4, Published(48.70, 1.84, FINN), Published(48.07, None, LISTED)),
                    (5, 2, Published(63.11, 0.92, FINN), Published(63.15, None, LISTED)),
                )
            ),
            "Finn et al. 2017, appendix A.1, and their code; radii: the command of the released Sharp-MAML code",
        ),
        Protocol(
            "sinusoid",
            "sinusoid",
            (),
            tuple(
                Experiment(
                    f"{shots}-shot",
                    f"{shots}-shot",
                    {**_SINE, "shots": shots, "queries": shots},
                    {},
                    _WAVES,
                    {},
                    (1, 5, 10),
                )
                for shots in (10, 5)
            ),
            "Finn et al. 2017, section 5.1, who publish curves and no table; radii: ours",
        ),
    )
}
"""What can be reproduced, by name."""


def known_complete(protocol: Protocol, set_name: str) -> bool:
    """Whether a data set is the published one, so that published numbers may stand beside it.

    >>> known_complete(PROTOCOLS["miniimagenet"], "mini-ImageNet-50")
    False
    """
    return set_name.lower() in protocol.complete


def protocol_of(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown reproduction {name!r}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]

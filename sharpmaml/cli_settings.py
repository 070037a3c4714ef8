"""The settings of a training as flags: in groups that a person can read, and with typed data options."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from cyclopts import Group, Parameter

from sharpmaml.config import TrainConfig

GROUPS = {
    "Method": "method alpha_low alpha_up eps_grad eps_m perturbation adapt_norm_affine sam_at_test",
    "Task and data": "data data_root data_options ways shots queries label_noise seed",
    "Network": "model channels downsample",
    "Inner loop": "inner_steps test_steps inner_rate",
    "Meta-update": "iterations meta_batch meta_rate optimizer schedule reduction clip_norm clip_value",
    "Other methods, part by part": "adapted rates estimator proximal solver_steps multi_step",
    "Cheaper upper ascent": "ascent_gradient ascent_every ascent_reuse ascent_part",
    "Checkpoints and validation": "checkpoint_every validate_every validation_episodes patience guard",
    "Machine": "executor tasks_at_once device dtype precision",
}
"""Settings by the heading that `--help` shows them under, in the order of the page."""

if TYPE_CHECKING:
    Settings = TrainConfig
else:

    @dataclasses.dataclass(frozen=True)
    class Settings(TrainConfig):  # noqa: D101 - the next line
        __doc__ = TrainConfig.__doc__

    # A dict has a flag for each of its keys (--data-options.image_size 42), a Mapping has none.
    _HINTS = {**get_type_hints(TrainConfig), "data_options": dict[str, Any]}
    # cyclopts reads both; those of __init__ are strings, which this module could not resolve.
    Settings.__annotations__ = Settings.__init__.__annotations__ = {
        name: Annotated[_HINTS[name], Parameter(group=Group(title, sort_key=number))]
        for number, (title, names) in enumerate(GROUPS.items())
        for name in names.split()
    }


def as_config(given: TrainConfig) -> TrainConfig:
    """The settings that flags stand for; data options get the type that they are written as.

    >>> as_config(TrainConfig(data_options={"image_size": "42", "split": "vinyals"})).data_options
    {'image_size': 42, 'split': 'vinyals'}
    """
    options = {name: _typed(value) for name, value in given.data_options.items()}
    return TrainConfig(**{**given.to_dict(), "data_options": options})


def _typed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    number = isinstance(found, int) or (isinstance(found, float) and math.isfinite(found))
    return found if number else value

"""A training run that is cut off, as if by hand."""

from collections.abc import Callable, Mapping
from typing import Any


class Stop(Exception):
    """What cuts it off."""


def stop_at(step: int) -> Callable[[Mapping[str, Any]], None]:
    """A listener to the progress of training that ends it at a meta-update."""

    def listen(record: Mapping[str, Any]) -> None:
        if record["iteration"] == step:
            raise Stop

    return listen

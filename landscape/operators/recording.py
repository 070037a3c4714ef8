"""Products of operators kept on disk as they are made, so that an interrupted computation goes on where it was."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from landscape.holding import held
from landscape.journal import Journal
from landscape.objective import Objective, digest
from landscape.parallel import Team
from landscape.store import writable


class Recording:
    """The products of one computation in the order in which they are made.

    A spectral method asks for the same vectors in the same order when it is run again; while it does, it is
    given what was found before. At the first other vector the rest is forgotten, and products are made.

    Attributes:
        found: products that an earlier process left.
    """

    def __init__(self, journal: Journal | None, team: Team) -> None:
        self._journal, self._team = journal, team
        self._place = 1  # the first entry tells the objective
        self._left = team.agree(0 if journal is None else len(journal))
        self.found = max(self._left - 1, 0)

    def replayed(self, vectors: Tensor) -> tuple[Tensor, float] | None:
        """Products of rows ``(count, params)`` and what they cost in FB, if they were made before.

        Raises:
            WriteError: the journal cannot be read.
        """
        if self._place >= self._left:
            return None
        found = self._team.agree(self._stored(vectors))
        if found is None:
            self._left = 0
            return None
        self._place += 1
        made, cost = found
        return torch.from_numpy(made).to(vectors), cost

    def keep(self, vectors: Tensor, made: Tensor, cost: float) -> None:
        """Keep products ``(count, params)`` of ``vectors``.

        Raises:
            WriteError: the disk refuses; what was kept before is kept.
        """
        if self._journal is not None:
            # NumPy has no bfloat16; float32 holds it, and float16, exactly.
            wide = made if made.dtype == torch.float64 else made.float()
            words = {"vectors": digest([vectors]), "cost": cost}
            self._journal.append(words, {"products": wide.detach().cpu().numpy()})

    def _stored(self, vectors: Tensor) -> tuple[np.ndarray, float] | None:
        if self._journal is None:
            return None
        words, arrays = self._journal[self._place]
        if words["vectors"] == digest([vectors]):
            return arrays["products"], float(words["cost"])
        self._journal.cut(self._place)
        return None


@contextmanager
def recording(
    path: str | os.PathLike[str],
    objective: Objective,
    theta: Tensor | None = None,
    *,
    team: Team | None = None,
    tell: Callable[[str], None] = lambda words: None,
) -> Iterator[Recording]:
    """Keep the products of everything that is computed inside with ``record=``; continue what was interrupted.

    The results are those of an uninterrupted run to the bit. The file takes ``params`` numbers a product,
    and is removed where the block ends without an error.

    Args:
        path: the file; one of the same objective and point is continued.
        objective: the function.
        theta: the point ``(params,)``; ``objective.theta`` when left out.
        team: processes that share the data; the first of them writes.
        tell: called with a line about what was found.

    Raises:
        ValueError: the folder does not exist, or the file is of another objective or point, or no such file.
        HeldError: another process computes it; a ``ValueError`` too.
        WriteError: the disk refuses.

    >>> import tempfile, landscape
    >>> from landscape.objective import FunctionObjective
    >>> bowl = FunctionObjective(lambda t: t[0] ** 2 + 2 * t[1] ** 2, torch.zeros(2).double())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with recording(folder + "/products", bowl) as record:
    ...         round(landscape.eigenpairs(bowl, k=1, record=record).values.item(), 9)
    4.0
    """
    team = team or Team()
    where = objective.theta if theta is None else theta
    target = writable(path)
    loss = float(objective.value(where))
    identity = {
        "objective": objective.settings,
        "theta_sha256": digest([where]),
        "dtype": str(where.dtype),
        "device": where.device.type,
        "torch_version": str(torch.__version__),
    }
    with held(target if team.leads else None):
        journal = None
        if team.leads:
            journal = _opened(target, identity, loss)
        try:
            record = Recording(journal, team)
            if record.found:
                tell(
                    f"{target} holds {record.found} products of an earlier run: they are not made again"
                )
            yield record
        except BaseException:
            if journal is not None:
                journal.close()
            raise
        if journal is not None:
            journal.clear()


def _opened(target: Path, identity: Mapping[str, Any], loss: float) -> Journal:
    journal = Journal(target, identity)
    if journal.foreign:
        raise ValueError(
            f"{target} holds something else than products of this objective at this point: "
            "give another name, or delete the file"
        )
    if not len(journal):
        journal.append({"loss": loss})
        return journal
    # Settings need not tell two functions apart; their values at the point do.
    earlier = float(journal[0][0].get("loss", math.nan))
    if not np.isclose(earlier, loss, rtol=1e-4, atol=1e-12, equal_nan=True):
        raise ValueError(
            f"{target} holds products of another objective: its loss is {earlier} there and {loss} here; "
            "give another name, or delete the file"
        )
    return journal

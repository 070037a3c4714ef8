"""A surface from few of its points: which points to evaluate, and how good the rest is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation

from landscape.interpolant import Fit, spacing

CONFIDENCE = 0.95
"""Confidence of a certificate."""

SHARE = 0.05
"""A certificate says that no more than this share of the points lies outside the tolerance."""

_BATCH = 12
_PROBES = 3  # points of a batch that are drawn at random: they calibrate the error estimate
_WINDOW = 64  # most recent probes that calibrate
_COVERAGE = 0.9  # share of them that must lie within the estimated error
_FLOOR = 1 / 3  # estimates below this part of the tolerance are not told apart
_LEAST = 24  # held-out points of a certificate, at least
_DOUBT = 1e6  # whether a loss is finite comes before how large it is
_Array = np.ndarray[Any, np.dtype[Any]]
_Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Refined:
    """A surface known in part.

    Attributes:
        values: the loss, evaluated or interpolated, of the grid's shape; NaN where it is uncertain.
        error: estimated absolute error, 0 at evaluated points, infinite where uncertain. About 90 %
            of the probes (random points predicted before they were evaluated) lay within it; where
            a check was passed it is at most the tolerance.
        evaluated: True where the loss was evaluated.
        uncertain: True at points not evaluated whose nearest evaluated loss is NaN or infinite.
        outcome: ``"certified"``; ``"complete"``: every point is evaluated; ``"limit reached"``;
            ``"unfinished"``: there is more to ask.
        achieved: largest ``error`` as a share of the range of the finite losses.
        basin_achieved: largest ``error / |value|`` inside the basin; None if it was not asked for,
            or not come to.
        basin: the points the basin tolerance speaks of, the rim included where it is predicted.
        held_out: points of the passed check of ``tolerance``; 0 if none was passed or needed.
        held_out_max_error: their largest prediction error, as a share of the range.
        basin_held_out: the same number for ``basin_tolerance``; 0 when the whole basin is evaluated.
        basin_held_out_max_error: their largest relative prediction error.
    """

    values: _Array
    error: _Array
    evaluated: _Array
    uncertain: _Array
    outcome: str
    achieved: float
    basin_achieved: float | None
    basin: _Array
    held_out: int
    held_out_max_error: float
    basin_held_out: int
    basin_held_out_max_error: float


class Refiner:
    """Asks for points of a grid until the rest can be predicted.

    It starts from a coarse grid and adds batches where the estimated error is greatest. The
    estimate combines, at each point, the leave-one-out residuals of nearby evaluated points and the
    disagreement of three interpolants (cubic radial functions of the loss and of its logarithm, and
    thin plates). It is scaled by what random points, predicted before they were evaluated, showed.

    **What certified means.** When the estimated error is within the tolerance everywhere, ``n`` points
    are drawn at random from those not evaluated, spread evenly over the grid, and evaluated. All of
    them must lie within the tolerance of what was predicted before. If more than :data:`SHARE` (5 %)
    of the surface lay outside, a sample of this size would show it with probability
    :data:`CONFIDENCE` (``n`` follows from the hypergeometric distribution, 60 to 70 points on a grid
    of 51 x 51; for many points and one attempt the rule is ``3 / n``). A failed check adds its points
    and refines on; attempt ``k`` must pass at level ``0.05 / 2**k``, so that the attempts together
    keep 95 %. A certificate is therefore a statement about 95 % of the points: an isolated spike
    between evaluated points can be missed, and then lies outside without a trace. Held-out points
    join the fit afterwards; the certificate holds for the prediction before they did.

    **The basin** is where the loss is below twice ``L10``, the mean of the finite losses at the points
    whose distance from the centre of the grid is one tenth of its half-width, to within half a grid
    step (at least the nearest neighbours); of losses that are not negative, that is. It comes second.
    A small basin is evaluated completely, with the neighbours of every point found in it; of a
    large one the same certificate is given with the pointwise relative error.

    **NaN and infinite losses** are kept, left out of the fit, and make the points nearest to them
    ``uncertain``, for which nothing is predicted or certified. The border is traced to about two
    grid steps.

    **Resuming is exact.** The batches are a function of the arguments and of the values of earlier
    batches alone. A new Refiner that is told every known value, in any order, replays the batches
    that are complete and asks for what is missing. Values told but not asked for wait until they are
    asked for.

    Losses are taken as exact; there is no model of noise, since a loss over fixed data has none.

    Args:
        shape: of the grid, one or two axes of at least 5 points each.
        tolerance: largest error as a share of the range (maximum minus minimum of the finite losses).
        basin_tolerance: largest pointwise relative error in the basin; None to ask for none.
        seed: of the probes and of the held-out points.
        limit: most points to evaluate; None for all of them.

    Raises:
        ValueError: a bad shape, tolerance or limit.

    >>> import numpy as np
    >>> x, y = np.meshgrid(np.linspace(-1, 1, 51), np.linspace(-1, 1, 51))
    >>> bowl = x**2 + 5 * y**2
    >>> refiner = Refiner(bowl.shape, tolerance=0.01)
    >>> while batch := refiner.ask():
    ...     refiner.tell(batch, [bowl[index] for index in batch])
    >>> found = refiner.result()
    >>> found.outcome, bool(found.evaluated.sum() < 300)
    ('certified', True)
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        tolerance: float,
        basin_tolerance: float | None = None,
        seed: int = 0,
        limit: int | None = None,
    ) -> None:
        if len(shape) not in (1, 2) or min(shape) < 5:
            raise ValueError(f"shape is {shape}: expected one or two axes of at least 5 points")
        for name, value in (("tolerance", tolerance), ("basin_tolerance", basin_tolerance)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} is {value}: expected a share between 0 and 1, say 0.01")
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}: expected at least 1 point, or None")
        self.shape = tuple(int(n) for n in shape)
        self.tolerance = tolerance
        self.basin_tolerance = basin_tolerance
        self.seed = seed
        self.limit = math.prod(self.shape) if limit is None else limit
        self._steps = np.indices(self.shape).reshape(len(shape), -1).T  # (points, axes)
        self._places = self._steps * (2.0 / (max(self.shape) - 1))
        centre = (np.array(self.shape) - 1) / 2
        self._radius = np.linalg.norm(self._steps - centre, axis=1)
        tenth = max(0.1 * (max(self.shape) - 1) / 2, float(self._radius.min()), 1.0)
        self._ring = np.flatnonzero(np.abs(self._radius - tenth) <= 0.5)
        self._strata = _along_curve(self._steps)
        self._known: dict[int, float] = {}
        self._outcome = "unfinished"
        self._restart()

    def _restart(self) -> None:
        self._used: list[int] = []  # points of the batches that are complete, in their order
        self._probes: list[tuple[int, float, float]] = []  # point, residual, unscaled estimate
        self._checks: dict[str, tuple[int, float]] = {}  # name: points held out, largest error
        self._draws = 0
        self._level: float | None = None  # L10, from the second phase on
        self._course = self._run()
        self._batch: list[int] = []
        self._cut = False  # the limit took something from the batch: it is the last one
        self._next()

    @property
    def done(self) -> bool:
        """True when there is nothing more to ask."""
        return not self.ask()

    @property
    def outcome(self) -> str:
        """See :class:`Refined`."""
        self.ask()
        return self._outcome

    def ask(self) -> list[_Index]:
        """Points to evaluate next: at most 12 after the first batch; empty when done."""
        while self._outcome == "unfinished":
            missing = [i for i in self._batch if i not in self._known]
            if missing:
                return [tuple(int(k) for k in self._steps[i]) for i in missing]
            self._used += self._batch
            if len(self._used) == len(self._steps):
                self._outcome = "complete"
            elif self._cut or not self._next():
                self._outcome = "limit reached" if self._cut else "certified"
        return []

    def _next(self) -> bool:
        """Take up the next batch, as far as the limit allows; False when there is none."""
        try:
            batch = next(self._course, None)
        except BaseException:  # an interrupt ends the course: the next question replays it
            self._restart()
            raise
        if batch is None:
            return False
        self._batch = batch[: self.limit - len(self._used)]
        self._cut = len(self._batch) < len(batch)
        return True

    def tell(self, indices: Iterable[Sequence[int]], values: Iterable[float]) -> None:
        """Losses at grid points; NaN and infinite ones are losses too.

        Args:
            indices: of the points, as ``ask`` gives them.
            values: one loss a point.

        Raises:
            ValueError: an index outside the grid, or unequal numbers of indices and values.
        """
        places, losses = [tuple(index) for index in indices], [float(value) for value in values]
        if len(places) != len(losses):
            raise ValueError(
                f"{len(places)} indices but {len(losses)} values: expected one value a point"
            )
        for place in places:
            inside = all(0 <= k < n for k, n in zip(place, self.shape, strict=False))
            if len(place) != len(self.shape) or not inside:
                raise ValueError(
                    f"index {place} is outside the grid: expected one below {self.shape}"
                )
        flat = (int(np.ravel_multi_index(place, self.shape)) for place in places)
        self._known.update(zip(flat, losses, strict=True))

    def result(self) -> Refined:
        """The surface from all that is known by now.

        Raises:
            ValueError: nothing is known yet.
        """
        if not self._known:
            raise ValueError(
                "no value is known yet: tell the losses of the points that ask() gives"
            )
        self.ask()
        nodes = np.array(sorted(self._known))
        fit = Fit(self._places, nodes, self._at(nodes), self._level)
        basin = self._basin(fit)
        error = self._error(fit, "range")
        error = np.where(basin, np.minimum(error, self._error(fit, "basin")), error)
        error[fit.evaluated] = 0.0
        share = error / self._allowed(fit, "range")
        achieved = self.tolerance * share[~fit.uncertain].max(initial=0.0) if fit.range else 0.0
        relative = None
        if self._level is not None:
            share = error / self._allowed(fit, "basin")
            relative = float((self.basin_tolerance or 0.0) * share[basin].max(initial=0.0))
        held_out, held_out_error = self._checks.get("range", (0, 0.0))
        basin_held_out, basin_held_out_error = self._checks.get("basin", (0, 0.0))
        return Refined(
            values=fit.values.reshape(self.shape),
            error=error.reshape(self.shape),
            evaluated=fit.evaluated.reshape(self.shape),
            uncertain=fit.uncertain.reshape(self.shape),
            outcome=self._outcome,
            achieved=float(achieved),
            basin_achieved=relative,
            basin=basin.reshape(self.shape),
            held_out=held_out,
            held_out_max_error=held_out_error,
            basin_held_out=basin_held_out,
            basin_held_out_max_error=basin_held_out_error,
        )

    def _run(self) -> Iterator[list[int]]:
        """The batches; resumed when every value of the last one is known."""
        yield self._start()
        yield from self._satisfy("range")
        if self.basin_tolerance is not None:
            yield from self._evaluated(self._ring[~np.isin(self._ring, self._used)])
            ring = self._at(self._ring)
            if np.isfinite(ring).any():
                self._level = float(ring[np.isfinite(ring)].mean())
                yield from self._satisfy("basin")

    def _start(self) -> list[int]:
        coarse = np.ones(len(self._steps), dtype=bool)
        for axis, n in enumerate(self.shape):
            count = 7 if n >= 17 else 5 if n >= 9 else 3
            ticks = np.rint(np.linspace(0, n - 1, count)).astype(int)
            coarse &= np.isin(self._steps[:, axis], ticks)
        coarse |= self._radius <= max(1.0, float(self._radius.min()))
        chosen = np.flatnonzero(coarse)
        return [int(i) for i in chosen[np.argsort(self._radius[chosen], kind="stable")]]

    def _satisfy(self, goal: str) -> Iterator[list[int]]:
        attempts = 0
        while True:
            fit = self._fit()
            allowed = self._allowed(fit, goal)
            region = self._basin(fit) if goal == "basin" else np.ones_like(fit.evaluated)
            region &= ~fit.uncertain
            unknown = np.flatnonzero((region | fit.doubtful) & ~fit.evaluated)
            if not len(unknown):
                return
            level = (1 - CONFIDENCE) / 2 ** (attempts + 1)
            wanted = _sample_size(int(region.sum()), len(unknown), level)
            if len(unknown) <= (2 * wanted if goal == "basin" else wanted):
                # To know them all costs little more than to check them.
                yield from self._evaluated(unknown)
                continue
            excess = self._calibrated(fit, allowed) / allowed
            excess[fit.doubtful] = _DOUBT * fit.distance[fit.doubtful]
            if excess[unknown].max() > 1:
                probes = self._drawn(unknown[~fit.doubtful[unknown]], _PROBES)
                batch = _greatest(excess, unknown, probes, fit.distance, self._places)
                yield batch
                self._learn(fit, probes)
                continue
            attempts += 1
            check = self._drawn(unknown, wanted)
            worst = 0.0
            for start in range(0, wanted, _BATCH):
                batch = check[start : start + _BATCH]
                yield batch
                self._learn(fit, batch)
                misses = np.abs(self._at(batch) - fit.values[batch]) / allowed[batch]
                worst = max(worst, float(misses.max())) if np.isfinite(misses).all() else np.inf
                if worst > 1:
                    break
            else:
                scale = self.tolerance if goal == "range" else self.basin_tolerance or 0.0
                self._checks[goal] = (wanted, worst * scale)
                return

    def _evaluated(self, points: _Array) -> Iterator[list[int]]:
        for start in range(0, len(points), _BATCH):
            yield [int(i) for i in points[start : start + _BATCH]]

    def _fit(self) -> Fit:
        nodes = np.array(self._used)
        return Fit(self._places, nodes, self._at(nodes), self._level)

    def _at(self, points: Iterable[int]) -> _Array:
        return np.array([self._known[int(i)] for i in points])

    def _basin(self, fit: Fit) -> _Array:
        if self._level is None:
            return np.zeros_like(fit.evaluated)
        inside = np.nan_to_num(fit.values, nan=np.inf) < 2 * self._level
        seen = (inside & fit.evaluated).reshape(self.shape)
        rim = binary_dilation(seen, np.ones((3,) * len(self.shape))).reshape(-1)
        region: _Array = inside | (rim & ~fit.evaluated & ~fit.uncertain)
        return region

    def _allowed(self, fit: Fit, goal: str) -> _Array:
        """Error that the tolerance allows at each point."""
        least = 1e-12 * fit.largest or 1e-300  # rounding, not error
        allowed: _Array = np.full(len(fit.values), self.tolerance * fit.range)
        if goal == "basin":
            allowed = (self.basin_tolerance or 0.0) * np.abs(np.nan_to_num(fit.values))
        return np.maximum(allowed, least)

    def _calibrated(self, fit: Fit, allowed: _Array) -> _Array:
        floor = _FLOOR * allowed
        recent = self._probes[-_WINDOW:]
        ratios = [residual / max(raw, floor[i]) for i, residual, raw in recent]
        factor = max(1.0, float(np.quantile(ratios, _COVERAGE))) if ratios else 1.0
        scaled: _Array = factor * np.maximum(fit.raw, floor)
        return scaled

    def _error(self, fit: Fit, goal: str) -> _Array:
        allowed = self._allowed(fit, goal)
        error = self._calibrated(fit, allowed)
        if goal in self._checks:  # the check speaks for the tolerance, whatever its points taught
            error = np.where(fit.uncertain, np.inf, np.minimum(error, allowed))
        return error

    def _learn(self, fit: Fit, points: list[int]) -> None:
        residuals = np.abs(self._at(points) - fit.values[points])
        known = np.isfinite(residuals)
        self._probes += [
            (i, float(r), float(fit.raw[i]))
            for i, r, k in zip(points, residuals, known, strict=True)
            if k
        ]

    def _drawn(self, points: _Array, count: int) -> list[int]:
        """``count`` of ``points``, one from each of as many equal stretches of the curve."""
        key = f"{self.seed}/{self._draws}".encode()
        self._draws += 1
        word = int.from_bytes(hashlib.sha256(key).digest()[:16], "little")
        random = np.random.Generator(np.random.Philox(key=word))
        ordered = points[np.argsort(self._strata[points], kind="stable")]
        return [
            int(part[random.integers(len(part))])
            for part in np.array_split(ordered, count)
            if len(part)
        ]


def _along_curve(steps: _Array) -> _Array:
    """Position of each point on a Z-order curve: neighbours on the curve are near on the grid."""
    axes = steps.shape[1]
    order = np.zeros(len(steps), dtype=np.int64)
    for bit in range(20):
        for axis in range(axes):
            order |= ((steps[:, axis] >> bit) & 1) << (axes * bit + axis)
    return order


def _sample_size(points: int, unknown: int, level: float) -> int:
    """Smallest sample of ``unknown`` points that shows a miss, but for a chance of ``level``.

    The sample is drawn without replacement, and more than ``SHARE * points`` of the points miss.
    """
    misses = math.floor(SHARE * points) + 1
    size, chance = 0, 1.0
    while chance > level and size + misses <= unknown:
        chance *= (unknown - misses - size) / (unknown - size)
        size += 1
    return min(max(size, _LEAST), unknown)


def _greatest(
    excess: _Array, unknown: _Array, probes: list[int], distance: _Array, places: _Array
) -> list[int]:
    """The probes, and the points of greatest ``excess`` that are not close to one another."""
    score = np.zeros(len(excess))
    score[unknown] = excess[unknown]
    least = spacing(places)
    batch: list[int] = []
    for _ in range(min(_BATCH, len(unknown))):
        best = probes[len(batch)] if len(batch) < len(probes) else int(score.argmax())
        batch.append(best)
        apart = ((places - places[best]) ** 2).sum(axis=1)
        score *= 1 - np.exp(-apart / max(float(distance[best]), least) ** 2)
        score[best] = -1.0
    return batch

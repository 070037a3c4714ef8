"""Whether a network is as often right as it is sure (Guo et al. 2017, "On calibration of modern neural networks")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscape.plot.table import Table
from sharpmaml.evaluating.conditions import Trial
from sharpmaml.evaluating.intervals import half_width

BINS = 15
_DRAWS = 1000
_FLOOR_DRAWS = 100


@dataclass(frozen=True)
class Calibration:
    """Predicted probabilities of queries against what was right.

    Attributes:
        probabilities: ``(episodes, queries, classes)``.
        labels: ``(episodes, queries)``.
        seed: of the bootstrap.
        settings: what the numbers are numbers of.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    seed: int
    settings: dict[str, Any]

    @property
    def nll(self) -> NDArray[np.float64]:
        """Negative log-likelihood of each episode's queries in nats, their mean, ``(episodes,)``."""
        chosen = np.take_along_axis(self.probabilities, self.labels[..., None], 2)[..., 0]
        values: NDArray[np.float64] = -np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean(1)
        return values

    @property
    def brier(self) -> NDArray[np.float64]:
        """``Σ_c (p_c − [c is right])²`` (Brier 1950), 0 to 2, the mean of each episode, ``(episodes,)``."""
        hot = np.eye(self.probabilities.shape[2])[self.labels]
        values: NDArray[np.float64] = np.square(self.probabilities - hot).sum(2).mean(1)
        return values

    def bins(self) -> NDArray[np.float64]:
        """Queries, right answers and summed confidence of each bin, ``(3, episodes, 15)``.

        Bin ``m`` of 15 holds confidences in ``((m − 1)/15, m/15]``.
        """
        confidence, hits = self._sure()
        return _binned(confidence, hits)

    @property
    def ece(self) -> float:
        """Expected calibration error ``Σ_m |B_m|/n · |acc(B_m) − conf(B_m)|`` (Guo et al. 2017, eq. 3)."""
        return _ece(self.bins().sum(1))

    def ece_interval(self) -> tuple[float, float]:
        """95 % interval by a bootstrap over episodes, 1000 draws.

        The estimate is biased upwards, by sampling noise in every bin, and a resampled one once more, so
        the interval is the basic one, ``2 ece − (quantiles)``, cut at 0: percentiles would leave out the
        truth wherever a network is calibrated. There even this one covers less than it says; compare
        with :meth:`ece_floor`.
        """
        count, hits, confidence = self.bins()
        generator = np.random.Generator(np.random.Philox(self.seed))
        n = len(count)
        weights = generator.multinomial(n, np.full(n, 1 / n), _DRAWS).astype(np.float64)
        gaps = np.abs(weights @ (hits - confidence)).sum(1) / (weights @ count).sum(1)
        low, high = np.quantile(gaps, [0.025, 0.975])
        return max(0.0, 2 * self.ece - float(high)), max(0.0, 2 * self.ece - float(low))

    def ece_floor(self) -> float:
        """What the ECE of a perfectly calibrated network would be, with these confidences and as many queries.

        The mean over 100 draws in which every answer is right with the probability that the network gave it.
        """
        confidence, _ = self._sure()
        generator = np.random.Generator(np.random.Philox([self.seed, 1]))
        draws = (generator.random(confidence.shape) < confidence for _ in range(_FLOOR_DRAWS))
        return float(np.mean([_ece(_binned(confidence, hits).sum(1)) for hits in draws]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the reliability table: of each bin its queries, accuracy, confidence."""
        count, hits, confidence = self.bins().sum(1)
        shown = [i for i in range(BINS) if count[i]]
        low, high = self.ece_interval()
        return {
            "ece": self.ece,
            "ece_low": low,
            "ece_high": high,
            "ece_floor": self.ece_floor(),
            "nll": float(self.nll.mean()),
            "nll_ci95": float(half_width(self.nll)),
            "brier": float(self.brier.mean()),
            "brier_ci95": float(half_width(self.brier)),
            "reliability": [
                {
                    "low": i / BINS,
                    "high": (i + 1) / BINS,
                    "queries": int(count[i]),
                    "accuracy": float(hits[i] / count[i]),
                    "confidence": float(confidence[i] / count[i]),
                }
                for i in shown
            ],
            "settings": self.settings,
        }

    def table(self) -> str:
        """Aligned text: the numbers, then the reliability table."""
        d = self.to_dict()
        rows = [
            [
                f"{r['low']:.3f} to {r['high']:.3f}",
                str(r["queries"]),
                f"{r['confidence']:.3f}",
                f"{r['accuracy']:.3f}",
                f"{r['accuracy'] - r['confidence']:+.3f}",
            ]
            for r in d["reliability"]
        ]
        columns = ["confidence in", "queries", "mean confidence", "accuracy", "difference"]
        head = [
            "Calibration",
            f"ECE    {d['ece']:.4f} [{d['ece_low']:.4f}, {d['ece_high']:.4f}]   "
            f"(a calibrated network would show {d['ece_floor']:.4f})",
            f"NLL    {d['nll']:.4f} ± {d['nll_ci95']:.4f} nats",
            f"Brier  {d['brier']:.4f} ± {d['brier_ci95']:.4f}",
        ]
        return "\n".join(head) + Table("Reliability", columns, rows).to_text()

    def _sure(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        confidence: NDArray[np.float64] = self.probabilities.max(2)
        return confidence, self.probabilities.argmax(2) == self.labels


def _binned(confidence: NDArray[np.float64], hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    episodes = len(confidence)
    flat = (bins + BINS * np.arange(episodes)[:, None]).ravel()
    columns = (np.ones_like(confidence), hits.astype(np.float64), confidence)
    return np.stack(
        [np.bincount(flat, c.ravel(), episodes * BINS).reshape(episodes, BINS) for c in columns]
    )


def _ece(sums: NDArray[np.float64]) -> float:
    count, hits, confidence = sums
    return float(np.abs(hits - confidence).sum() / count.sum())


def calibration_of(trial: Trial) -> Calibration:
    """Probabilities of the adapted networks for all queries.

    Raises:
        ValueError: a regression.
    """
    trial.classes("calibration")
    probabilities, labels = [], []
    for whole in trial.stacks():
        (outputs,) = trial.scorer.answers(whole, (trial.conditions.norm,)).values()
        probabilities.append(outputs[0].double().softmax(-1).cpu().numpy())
        labels.append(whole.query_y.cpu().numpy())
    return Calibration(
        np.concatenate(probabilities),
        np.concatenate(labels),
        trial.conditions.seed,
        trial.settings(),
    )

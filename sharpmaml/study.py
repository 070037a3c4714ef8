"""Trained runs, scored and measured side by side on one page: which one is flatter, which one better."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from landscape import json_text
from landscape.compare import Comparison, Progress
from landscape.plot.table import Cell, Table
from landscape.writing import write_error, write_text
from sharpmaml.checkpoint import Checkpoint, read
from sharpmaml.config import TrainConfig
from sharpmaml.evaluation import Evaluation, evaluate
from sharpmaml.objective import MetaObjective, meta_objective
from sharpmaml.spectra import Spectra, spectra, table

SPLITS = ("train", "test")
_LARGEST = 1e100  # a score; the square of more is no number


@dataclass(frozen=True)
class StudyPage:
    """A page that was written.

    Attributes:
        path: the HTML file.
        tables: those on it.
        doubts: what of it fails a check of its own; it stands in the page's box too.
    """

    path: Path
    tables: tuple[Table, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What is measured of every run; all runs on the same episodes, tasks, directions and draws.

    Attributes:
        out: folder of the page; what was measured is kept beside it and reused.
        test_episodes: episodes behind an accuracy.
        tasks: tasks behind the meta objective.
        points: points on each axis of the surfaces; 0 leaves them out.
        line_points: points of the lines.
        measures: names of sharpness measures.
        settings: settings of the measures, by name.
        seed: of test episodes, tasks, directions and draws.
        device: where to compute.
        figures: whether to draw vector figures beside the page.
        folder: name of the folder in ``out`` where measurements are kept.
        eigenvalues: settings of :func:`sharpmaml.spectra.spectra` (``k``, ``tol``, ``probes``), on the test
            episodes; ``None`` leaves these out.
    """

    out: Path
    test_episodes: int
    tasks: int
    points: int
    line_points: int
    measures: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    seed: int = 0
    device: str = "auto"
    figures: bool = True
    folder: str = "measurements"
    eigenvalues: Mapping[str, Any] | None = None

    def measure(
        self,
        label: str,
        run: Path,
        progress: Progress | None = None,
        into: Comparison | None = None,
    ) -> dict[str, Evaluation]:
        """Score one run and measure the landscape around it; what is already known is not computed again.

        Args:
            label: its name.
            run: run folder or checkpoint.
            progress: called as ``progress(done, total, what)``.
            into: collects the measurements for a page.

        Returns:
            Its scores by split.
        """
        given = read(run)
        tell = progress or (lambda done, total, what: None)
        scores = {}
        for split in SPLITS:
            tell(0, self.test_episodes, f"accuracy on {split} classes")
            scores[split] = self._score(given, split)
            tell(self.test_episodes, self.test_episodes, f"accuracy on {split} classes")
        objectives = {f"{split} episodes": self._objective(given, split) for split in SPLITS}
        made = {"weights": given.fingerprint, "iterations": given.step, **_shown(given.config)}
        (into or self.comparison()).add(label, objectives, progress, made)
        if self.eigenvalues is not None:
            self.spectra(given, tell)
        return scores

    def spectra(self, given: Checkpoint, progress: Progress | None = None) -> Spectra:
        """Eigenvalues of one run on the test episodes, before and after adaptation and of the meta loss.

        Args:
            given: a checkpoint.
            progress: called as ``progress(done, total, what)``.
        """
        objective, chosen = self._objective(given, "test"), dict(self.eigenvalues or {})
        kept = self.out / self.folder / f"spectra-{given.fingerprint}-{self.seed}.json"
        wanted = json.loads(json.dumps({**objective.settings, **chosen, "seed": self.seed}))
        try:
            found = Spectra.from_dict(json_text.read(kept))
            if all(found.settings[key] == value for key, value in wanted.items()):
                return found
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            pass  # missing or damaged: measured again
        found = spectra(objective, seed=self.seed, progress=progress, **chosen)
        _write(kept, found.to_dict())
        return found

    def comparison(self) -> Comparison:
        """An empty comparison with the settings of this study."""
        return Comparison(
            self.out / self.folder,
            points=self.points,
            line_points=self.line_points,
            seed=self.seed,
            measures=self.measures,
            settings=self.settings,
        )

    def page(self, runs: Mapping[str, Path], *, title: str, recipe: str) -> StudyPage:
        """Write ``out/index.html`` about runs by label; the first is what the others are held against.

        Args:
            runs: label -> run folder or checkpoint.
            title: of the page.
            recipe: the command that makes the page, shown on it.

        Returns:
            The page, its tables, and what of it fails a check of its own.
        """
        together = self.comparison()
        scores = {label: self.measure(label, run, into=together) for label, run in runs.items()}
        tables = [_accuracy_table(scores)]
        if self.eigenvalues is not None:
            found = {label: self.spectra(read(run)) for label, run in runs.items()}
            tables.append(table(found))
            together.doubts += [
                f"{label}: {told}" for label, of in found.items() for told in of.doubts
            ]
        page = together.write(
            self.out / "index.html",
            title=title,
            lead=_lead(scores, together, self.tasks, recipe),
            tables=tables,
            settings={"command": recipe},
            figures=self.figures,
        )
        return StudyPage(page, (*tables, *together.tables()), tuple(together.doubts))

    def _score(self, given: Checkpoint, split: str) -> Evaluation:
        kept = self.out / self.folder / f"scores-{given.fingerprint}-{split}-{self.seed}.json"
        try:
            record = json_text.read(kept)
            scores = np.asarray(record["scores"], dtype=np.float64)
            if (
                scores.shape == (self.test_episodes,)
                and bool((np.abs(scores) < _LARGEST).all())
                and record["inner_steps"] == given.config.test_steps
            ):
                return Evaluation(str(record["metric"]), scores, dict(record["settings"]))
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            pass  # missing or damaged: scored again
        found = evaluate(
            given, episodes=self.test_episodes, split=split, seed=self.seed, device=self.device
        )
        record = {
            "metric": found.metric,
            "scores": found.scores.tolist(),
            "inner_steps": found.settings["inner_steps"],
            "settings": found.settings,
        }
        _write(kept, record)
        return found

    def _objective(self, given: Checkpoint, split: str) -> MetaObjective:
        return meta_objective(
            given, episodes=self.tasks, seed=self.seed, split=split, device=self.device
        )


def _write(file: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` so that another process sees all of it or nothing."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(file, error) from None
    write_text(file, json.dumps(record))


def _shown(config: TrainConfig) -> dict[str, Any]:
    # Where a data set lies is nobody's business but this machine's.
    return {k: v for k, v in config.to_dict().items() if k not in ("data_root", "device")}


def _accuracy_table(scores: Mapping[str, Mapping[str, Evaluation]]) -> Table:
    base = next(iter(scores.values()))["test"]
    scale, unit = (100.0, ", %") if base.metric == "accuracy" else (1.0, "")

    def cell(mean: float, ci: float) -> Cell:
        return Cell(scale * mean, low=scale * (mean - ci), high=scale * (mean + ci))

    rows: list[Sequence[Cell | str]] = []
    for label, of in scores.items():
        paired = Cell(None) if of["test"] is base else cell(*of["test"].difference(base))
        rows.append([label, *(cell(of[s].mean, of[s].ci95) for s in SPLITS), paired])
    s = base.settings
    return Table(
        base.metric.capitalize(),
        ["", *(f"{split} classes{unit}" for split in SPLITS), "test classes, against the first"],
        rows,
        f"{s['ways']}-way {s['shots']}-shot, {s['queries']} queries a class, {s['inner_steps']} plain "
        f"adaptation steps of {s['inner_rate']}; mean and 95 % interval over {s['episodes']} episodes, the "
        "same ones for every row; differences are paired by episode.",
    )


def _lead(
    scores: Mapping[str, Mapping[str, Evaluation]], study: Comparison, tasks: int, recipe: str
) -> str:
    """What was asked, what came out (in numbers, not adjectives), and how to make the page again."""
    names = list(scores)
    base = scores[names[0]]["test"]
    scale, unit = (100.0, " points") if base.metric == "accuracy" else (1.0, "")
    gains = []
    for name in names[1:]:
        mean, ci = scores[name]["test"].difference(base)
        shown = Cell(scale * mean, low=scale * (mean - ci), high=scale * (mean + ci))
        # Of an error, less is better.
        gain = mean if base.metric == "accuracy" else -mean
        word = (
            "cannot be told from"
            if abs(mean) <= ci
            else "is better than"
            if gain > 0
            else "is worse than"
        )
        gains.append(f"{name} {word} {names[0]} ({shown}{unit})")
    config = base.settings
    return (
        f"{len(names)} initializations, trained from the same weights on the same episodes of {config['data']} "
        f"({config['ways']}-way {config['shots']}-shot), measured on one and the same function: the plain MAML "
        f"meta loss over {tasks} fixed tasks, {config['inner_steps']} adaptation steps, no perturbation.\n\n"
        f"Flatter than {names[0]}? A change that is smaller than the errors in the tables is none.\n\n"
        + "".join(f"{sentence}\n\n" for sentence in study.verdict())
        + f"Better on unseen classes? {'; '.join(gains)}; differences are paired by episode, with 95 % intervals.\n\n"
        f"Made by: {recipe}"
    )

"""The figures of the page: differences, curves under other conditions, flatness against score."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from landscape import plot
from landscape.plot import style
from landscape.plot.chrome import TITLE_HEIGHT, dress, safe
from landscape.plot.frames import PLAIN
from landscape.plot.grid import PHONE, TABLET, arrange, axis_key
from landscape.store import load
from sharpmaml.reproduction.protocols import Condition, Experiment
from sharpmaml.reproduction.relation import Relation
from sharpmaml.reproduction.results import Findings
from sharpmaml.reproduction.statistics import Mean
from sharpmaml.reproduction.tables import label, metric_words

_MARKS = ("circle", "x", "square", "diamond", "triangle-up", "cross")
_LEGEND_BELOW = 52  # pixels under the panels: their ticks and titles
_LEGEND_ROW = 24
_STEEP = 1000.0
_TICKS = 4  # in a narrow panel
_SCATTERED = ("lambda_max", "trace", "sam", "adapted_lambda_max")


def gains(findings: Findings, experiments: Sequence[Experiment]) -> go.Figure | None:
    """Paired differences from the first method, one panel an experiment."""
    figure, titles = go.Figure(), []
    others = findings.others
    for i, e in enumerate(experiments):
        scale = findings.scale(e)
        for j, method in enumerate(others):
            gain = findings.gains.get((e.key, method))
            if gain is not None:
                figure.add_traces(_bar(findings, gain.mean, scale, j, method, i))
        unit = "points" if scale == 100 else "mean squared error"
        titles.append(e.title)
        _axes(figure, i, f"difference from {label(findings.base)}, {unit}", "")
        figure.layout[axis_key("xaxis", i)].zeroline = True
        figure.layout[axis_key("xaxis", i)].zerolinecolor = style.INK
        figure.layout[axis_key("yaxis", i)] = {
            **PLAIN, "anchor": axis_key("x", i), "range": [len(others) - 0.5, -0.5], "showgrid": False,
            "tickvals": list(range(len(others))), "ticktext": [safe(label(m)) for m in others], "automargin": True,
        }  # fmt: skip
    if not figure.data:
        return None
    note = (
        "thick: 95 % interval over episodes, paired · thin: 95 % interval over seeds, where there are several · "
        "a method that helps lies to the right of 0 for accuracy, to the left for errors"
    )
    return _finished(
        figure, titles, f"Against {label(findings.base)}, on {_unseen(findings)}", note
    )


def curves(findings: Findings, experiments: Sequence[Experiment]) -> list[go.Figure]:
    """One figure a curve: scores over label noise, and differences under shifts."""
    made = []
    kinds = dict.fromkeys(c.curve for e in experiments for c in e.conditions)
    for kind in kinds:
        noise = any(c.label_noise for e in experiments for c in e.conditions if c.curve == kind)
        figure = (
            _noise(findings, experiments, kind) if noise else _shifts(findings, experiments, kind)
        )
        if figure is not None:
            made.append(figure)
    return made


def surfaces(findings: Findings, experiment: Experiment) -> list[go.Figure]:
    """The meta loss around the solutions of seed 0; all panels on one scale."""
    found: dict[str, list[xr.Dataset]] = {"surface": [], "line": []}
    for method in findings.plan.methods:
        for run in findings.of(experiment, method):
            for kind, file in run.surfaces.items():
                found[kind].append(load(file).assign_attrs(label=label(method)))
    tasks = findings.plan.stages[experiment.key].depth.ledger_tasks
    group = f"{experiment.title}, {tasks} training tasks"
    figures = []
    if found["surface"]:
        # Four scenes are what a browser draws; FOMAML is left to the contours.
        some = [d for d in found["surface"] if d.attrs["label"] != label("fomaml")][:4]
        figures.append(plot.surface3d(some, title="Meta loss around each solution", group=group))
        figures.append(plot.contour(found["surface"], title="The same, as contours", group=group))
    if found["line"]:
        losses = np.concatenate([d["loss"].values.ravel() for d in found["line"]])
        steep = float(np.nanmax(losses)) > _STEEP * float(np.nanmin(losses))
        # A rise over orders of magnitude needs a logarithmic axis, which differences do not have.
        title = "Loss along one direction" if steep else "Rise along one direction"
        figures.append(plot.line(found["line"], title=title, group=group, relative=not steep))
    return figures


def scatter(findings: Findings, experiment: Experiment) -> go.Figure | None:
    """Runs: sharpness against the score on unseen classes, one panel a measure."""
    found = [r for r in findings.relations[experiment.key] if r.name in _SCATTERED]
    if not found:
        return None
    figure, titles = go.Figure(), []
    scale, sign = findings.scale(experiment), findings.sign(experiment)
    for i, relation in enumerate(found):
        for j, method in enumerate(findings.plan.methods):
            of = [k for k, m in enumerate(relation.methods) if m == method]
            figure.add_trace(
                go.Scatter(
                    x=[relation.sharpness[k] for k in of],
                    y=[scale * sign * relation.goodness[k] for k in of],
                    mode="markers",
                    xaxis=axis_key("x", i),
                    yaxis=axis_key("y", i),
                    hovertemplate=f"{safe(label(method))}<br>%{{x:.4g}}, %{{y:.4g}}<extra></extra>",
                    **_look(method, j, show=i == 0),
                )
            )
        titles.append(_measure(relation))
        _axes(figure, i, "sharpness", _score_words(findings, experiment) if i == 0 else "")
        if min(relation.sharpness) > 0:
            _log(figure, i, relation.sharpness)
    note = f"{experiment.title} · a point is a run (a method and a seed)"
    return _finished(
        figure, titles, f"Sharpness and score on {_unseen(findings)}", note, legend=True
    )


def sixths(findings: Findings, experiment: Experiment) -> go.Figure | None:
    """Tasks: score by sixths of the tasks' adapted sharpness."""
    found = [r for r in findings.relations[experiment.key] if r.sixths]
    if not found:
        return None
    figure, titles = go.Figure(), []
    scale, sign = findings.scale(experiment), findings.sign(experiment)
    for i, relation in enumerate(found):
        for j, method in enumerate(findings.plan.methods):
            of = [s for s, m in zip(relation.sixths, relation.methods, strict=True) if m == method]
            if not of:
                continue
            figure.add_trace(
                go.Scatter(
                    x=list(range(1, 7)),
                    y=(scale * sign * np.mean(of, axis=0)).tolist(),
                    mode="lines+markers",
                    line={"color": style.colour(j), "width": 2, "dash": style.DASHES[j % 4]},
                    xaxis=axis_key("x", i),
                    yaxis=axis_key("y", i),
                    hovertemplate=f"{safe(label(method))}<br>%{{y:.4g}}<extra></extra>",
                    **_look(method, j, show=i == 0),
                )
            )
        titles.append(_measure(relation))
        _axes(figure, i, "sixth of the tasks", _score_words(findings, experiment) if i == 0 else "")
        if i:
            figure.layout[axis_key("yaxis", i)].matches = "y"  # one scale
        figure.layout[axis_key("xaxis", i)].update(
            tickvals=[1, 6], ticktext=["flattest", "sharpest"], range=[0.5, 6.5]
        )
    tasks = found[0].tasks.tasks if found[0].tasks else 0
    note = (
        f"{experiment.title} · {tasks} {_test_tasks(findings)}, sorted by their adapted sharpness within each run "
        "· means over seeds"
    )
    return _finished(figure, titles, "Are flatter tasks scored better?", note, legend=True)


def _tested(
    findings: Findings, experiments: Sequence[Experiment], kind: str
) -> list[tuple[Experiment, list[Condition]]]:
    """The experiments with conditions of one kind that were tested, with these."""
    found = (
        (e, [c for c in e.conditions if c.curve == kind and findings.under(e, findings.base, c)])
        for e in experiments
    )
    return [(e, conditions) for e, conditions in found if conditions]


def _noise(findings: Findings, experiments: Sequence[Experiment], kind: str) -> go.Figure | None:
    figure = go.Figure()
    titles: list[str] = []
    for e, conditions in _tested(findings, experiments, kind):
        i, scale = len(titles), findings.scale(e)
        for j, method in enumerate(findings.plan.methods):
            points = [(0.0, findings.score(e, method, findings.headline(e)))]
            points += [(c.label_noise, findings.under(e, method, c)) for c in conditions]
            beside = 0.4 * (j - (len(findings.plan.methods) - 1) / 2)  # bars do not overlap
            known = [(100 * x + beside, m) for x, m in points if m is not None]
            figure.add_trace(_line(known, scale, method, j, i))
        titles.append(e.title)
        _axes(figure, i, "wrong support labels, %", _score_words(findings, e) if i == 0 else "")
    if not titles:
        return None
    note = (
        "support labels exchanged at test, side by side · bars: 95 % intervals over episodes, not paired · "
        f"{_count(findings, experiments)} · means over seeds"
    )
    return _finished(figure, titles, "Label noise at test", note, legend=True)


def _shifts(findings: Findings, experiments: Sequence[Experiment], kind: str) -> go.Figure | None:
    figure = go.Figure()
    titles: list[str] = []
    for e, conditions in _tested(findings, experiments, kind):
        i, scale = len(titles), findings.scale(e)
        unit = "points" if scale == 100 else "mean squared error"
        for j, method in enumerate(findings.others):
            known = [
                (k + 0.12 * (j - (len(findings.others) - 1) / 2), m)
                for k, c in enumerate(conditions)
                if (m := findings.difference_under(e, method, c)) is not None
            ]
            figure.add_trace(_line(known, scale, method, j + 1, i, lines=False))
        titles.append(e.title)
        _axes(figure, i, "", f"difference from {label(findings.base)}, {unit}" if i == 0 else "")
        figure.layout[axis_key("xaxis", i)].update(
            tickvals=list(range(len(conditions))),
            ticktext=[safe(c.label) for c in conditions],
            range=[-0.5, len(conditions) - 0.5],
            showgrid=False,
        )
        figure.layout[axis_key("yaxis", i)].update(zeroline=True, zerolinecolor=style.INK)
    if not titles:
        return None
    note = (
        "tested as trained · paired by episode · bars: 95 % intervals over episodes · "
        f"{_count(findings, experiments)} · means over seeds"
    )
    return _finished(figure, titles, f"On {kind}", note, legend=True)


def _line(
    points: Sequence[tuple[float, Mean]],
    scale: float,
    method: str,
    j: int,
    i: int,
    lines: bool = True,
) -> go.Scatter:
    options: dict[str, Any] = {}
    if lines:
        options["line"] = {"color": style.colour(j), "width": 2, "dash": style.DASHES[j % 4]}
    return go.Scatter(
        x=[x for x, _ in points],
        y=[scale * m.value for _, m in points],
        error_y={
            "type": "data", "array": [scale * m.episodes for _, m in points], "color": style.colour(j),
            "thickness": 1.6, "width": 4,
        },
        mode="lines+markers" if lines else "markers",
        xaxis=axis_key("x", i),
        yaxis=axis_key("y", i),
        hovertemplate=f"{safe(label(method))}<br>%{{y:.4g}}<extra></extra>",
        **options,
        **_look(method, j, show=i == 0),
    )  # fmt: skip


def _bar(
    findings: Findings, mean: Mean, scale: float, row: int, method: str, i: int
) -> list[go.Scatter]:
    hue, axes = style.colour(row + 1), {"xaxis": axis_key("x", i), "yaxis": axis_key("y", i)}
    words = f"{safe(label(method))}<br>%{{x:.4g}}<extra></extra>"

    def error(half: float, thick: float, width: int) -> dict[str, Any]:
        return {"type": "data", "array": [half], "thickness": thick, "width": width, "color": hue}

    value = [scale * mean.value]
    drawn = [
        go.Scatter(
            x=value, y=[row], error_x=error(scale * mean.episodes, 5, 0), mode="markers",
            marker={"size": 11, "color": hue, "symbol": _MARKS[(row + 1) % len(_MARKS)]},
            showlegend=False, hovertemplate=words, **axes,
        )
    ]  # fmt: skip
    if not math.isnan(mean.seeds):
        drawn.append(
            go.Scatter(
                x=value, y=[row], error_x=error(scale * mean.seeds, 1.3, 9), mode="markers",
                marker={"size": 1, "color": hue}, showlegend=False, hoverinfo="skip", **axes,
            )
        )  # fmt: skip
    return drawn


def _look(method: str, j: int, show: bool) -> dict[str, Any]:
    return {
        "marker": {"size": 9, "color": style.colour(j), "symbol": _MARKS[j % len(_MARKS)]},
        "name": safe(label(method)),
        "legendgroup": method,
        "showlegend": show,
    }


def _axes(figure: go.Figure, i: int, x: str, y: str) -> None:
    figure.layout[axis_key("xaxis", i)] = {
        **PLAIN, "anchor": axis_key("y", i), "title": {"text": x, "standoff": 6}, "automargin": True,
    }  # fmt: skip
    figure.layout[axis_key("yaxis", i)] = {
        **PLAIN, "anchor": axis_key("x", i), "title": {"text": y, "standoff": 6}, "automargin": True,
    }  # fmt: skip


def _log(figure: go.Figure, i: int, values: Sequence[float]) -> None:
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max(0.06 * (high - low), 0.02)
    ticks, words = style.log_ticks(low - pad, high + pad)
    thin = math.ceil(len(words) / _TICKS)
    figure.layout[axis_key("xaxis", i)].update(
        type="log",
        range=[low - pad, high + pad],
        tickangle=0,
        tickvals=[10.0**t for t in ticks][::thin],
        ticktext=words[::thin],
    )


def _measure(relation: Relation) -> str:
    name = relation.name.removeprefix("adapted_").replace("_", " ").replace("lambda max", "λ max")
    return f"{name}, adapted" if relation.place == "adapted" else f"{name}, initialization"


def _finished(
    figure: go.Figure, titles: Sequence[str], title: str, note: str, legend: bool = False
) -> go.Figure:
    dress(figure, title, note)
    arrange(figure, list(titles), kind="axis", title_height=TITLE_HEIGHT)
    figure.layout.showlegend = legend
    if legend:
        _legend_below(figure)
    return figure


def _legend_below(figure: go.Figure) -> None:
    """A legend right under the panels, with the rows that it takes on a narrow screen."""
    names = [trace.name for trace in figure.data if trace.showlegend]
    length = sum(50 + 7.5 * len(name) for name in names)
    figure.layout.legend = {"orientation": "h", "x": 0, "yref": "paper", "yanchor": "top"}
    meta = copy.deepcopy(figure.layout.meta)  # arrangements of few panels are one object
    for arrangement in meta["arrangements"]:
        changes = arrangement["layout"] = dict(arrangement["layout"])
        rows = math.ceil(length / {PHONE: 300, TABLET: 560}.get(arrangement["below"], 1000))
        inner = changes["height"] - changes["margin.t"] - changes["margin.b"]
        changes["legend.y"] = -_LEGEND_BELOW / inner
        changes["height"] += _LEGEND_BELOW + _LEGEND_ROW * rows - changes["margin.b"]
        changes["margin.b"] = _LEGEND_BELOW + _LEGEND_ROW * rows
    figure.layout.meta = meta
    figure.layout.height, figure.layout.margin.b = changes["height"], changes["margin.b"]
    figure.layout.legend.y = changes["legend.y"]


def _score_words(findings: Findings, experiment: Experiment) -> str:
    words = metric_words(findings, experiment)
    return f"{words}, %" if findings.scale(experiment) == 100 else words.replace(" (", "<br>(")


def _unseen(findings: Findings) -> str:
    """What the test tasks are of."""
    images = any(findings.scale(e) == 100 for e in findings.protocol.experiments)
    return "unseen classes" if images else "unseen tasks"


def _test_tasks(findings: Findings) -> str:
    words = _unseen(findings)
    return words if words.endswith("tasks") else f"tasks of {words}"


def _count(findings: Findings, experiments: Sequence[Experiment]) -> str:
    counts = {findings.plan.stages[e.key].depth.condition_episodes for e in experiments}
    return f"{' or '.join(map(str, sorted(counts)))} episodes a condition"

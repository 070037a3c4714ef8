"""The look of every figure: colours, sizes, axis titles, ticks and the words of the footnote."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Okabe & Ito's colours, told apart with every common colour vision deficiency. Their yellow and
# black are left out: yellow lines vanish on white, black is the colour of axes and text.
SUBJECT_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot")  # a second cue: print and colour blindness
SEQUENTIAL = "viridis"

INK = "#1b1f24"
MUTED = "#59636e"
GRID = "#d5dae0"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

COLUMN_WIDTH = 3.25  # inches: one column of a two-column paper
PAGE_WIDTH = 6.75
PAPER_FONT_SIZE = 8.0
PAPER: dict[Any, Any] = {
    "font.size": PAPER_FONT_SIZE,
    "axes.titlesize": PAPER_FONT_SIZE,
    "axes.labelsize": PAPER_FONT_SIZE,
    "xtick.labelsize": PAPER_FONT_SIZE - 1,
    "ytick.labelsize": PAPER_FONT_SIZE - 1,
    "legend.fontsize": PAPER_FONT_SIZE - 1,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "axes.edgecolor": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "pdf.fonttype": 42,  # text stays text: editable, searchable, accepted by publishers
    "svg.fonttype": "none",
}

Z95 = 1.96  # half-width of a 95% normal interval, in standard errors
LOG_WHEN_ABOVE = 100.0  # a loss range of more than two decades is unreadable on a linear scale

# Words for files that do not say it themselves.
_KINDS = {"interpolation": "straight line between two points", "pca": "PCA plane"}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def colour(index: int) -> str:
    """The colour of the subject at ``index``, as ``#rrggbb``; repeats after six."""
    return SUBJECT_COLOURS[index % len(SUBJECT_COLOURS)]


def translucent(hex_colour: str, alpha: float) -> str:
    """``#rrggbb`` with an opacity, as a CSS colour.

    >>> translucent("#0072B2", 0.2)
    'rgba(0,114,178,0.2)'
    """
    red, green, blue = (int(hex_colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def number(value: float) -> str:
    """A tick label: plain digits where they are short, else a power of ten.

    >>> number(0.05), number(2000.0), number(1e-7), number(3e6)
    ('0.05', '2000', '10⁻⁷', '3×10⁶')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    mantissa = f"{value / 10.0**exponent:.3g}"
    power = "10" + str(exponent).translate(_SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}×{power}"


def nice_step(width: float, count: int) -> float:
    """The largest of 1, 2, 5 times a power of ten that cuts ``width`` into about ``count`` parts.

    >>> nice_step(1.0, 10), nice_step(7.0, 5)
    (0.1, 1.0)
    """
    raw = width / count
    power = 10.0 ** math.floor(math.log10(raw))
    best = max((f for f in (1.0, 2.0, 5.0, 10.0) if f * power <= raw * 1.0001), default=1.0)
    return best * power


def linear_ticks(low: float, high: float, count: int = 5) -> tuple[list[float], list[str]]:
    """Round tick positions inside ``[low, high]`` and their labels.

    >>> linear_ticks(0.0, 1.0)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], ['0', '0.2', '0.4', '0.6', '0.8', '1'])
    """
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return values, [number(v) for v in values]


def log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Tick positions in log10 units inside ``[low, high]`` (log10 units), labelled with the values.

    Decades, or finer steps where fewer than four decades are in sight.

    >>> log_ticks(-1.0, 1.0)[1], log_ticks(0.0, 4.0)[1]
    (['0.1', '0.3', '1', '3', '10'], ['1', '10', '100', '1000', '10⁴'])
    >>> log_ticks(0.0, 0.1)[1]
    ['1', '1.05', '1.1', '1.15', '1.2', '1.25']
    """
    stride = max(1, round((high - low) / 6))
    decades = [d for d in range(math.floor(low), math.ceil(high) + 1) if d % stride == 0]
    values: list[float] = []
    for multiples in ((1,), (1, 3), (1, 2, 5)):
        values = [m * 10.0**d for d in decades for m in multiples]
        values = [v for v in values if low - 1e-9 <= math.log10(v) <= high + 1e-9]
        if len(values) >= 4:
            break
    else:
        if len(values) < 3:
            values = [v for v in linear_ticks(10.0**low, 10.0**high, 5)[0] if v > 0]
    return [math.log10(v) for v in values], [number(v) for v in values]


def levels(low: float, high: float, count: int = 14) -> tuple[float, float, float]:
    """Contour levels ``(first, last, step)`` at round values strictly inside ``(low, high)``."""
    step = nice_step(high - low, count)
    first = math.floor(low / step + 1e-9) + 1
    last = max(first, math.ceil(high / step - 1e-9) - 1)
    return float(f"{first * step:.9g}"), float(f"{last * step:.9g}"), step


def words(value: Any) -> list[str]:
    """A list of strings, from the list, array, single string or JSON text a file gives back.

    >>> words("bias"), words(["bias", "norm"]), words('["bias"]'), words(None), words("")
    (['bias'], ['bias', 'norm'], ['bias'], [], [])
    """
    if isinstance(value, str) and value.startswith("["):
        value = json.loads(value)
    if value is None or (isinstance(value, str) and not value):
        return []
    return [value] if isinstance(value, str) else [str(v) for v in np.atleast_1d(value)]


def axis_title(name: str, attrs: Mapping[str, Any]) -> str:
    """The title of a direction's axis, with the rule that gives it its unit.

    A surface whose plane names its axes (``axis_titles``) has those names.

    >>> axis_title("α", {"normalize": "filter"}), axis_title("β", {"normalize": "none"})
    ('α (filter-normalized)', 'β (not normalized)')
    >>> axis_title("β", {"axis_titles": ["first", "second"]})
    'second'
    """
    own, index = words(attrs.get("axis_titles")), "αβ".find(name)
    if 0 <= index < len(own):
        return own[index]
    rule = str(attrs.get("normalize", ""))
    if not rule:
        return name
    return f"{name} (not normalized)" if rule == "none" else f"{name} ({rule}-normalized)"


def footnote(
    attrs: Mapping[str, Any],
    group: str = "",
    extra: Sequence[str] = (),
    refused: Sequence[str] = (),
) -> str:
    """The line under a figure: everything about the directions that changes what is seen.

    Args:
        attrs: attributes of a surface (``docs/schema.md``).
        group: which data the loss was taken on, such as ``"test episodes"``.
        extra: further remarks, such as the meaning of a band.
        refused: why what is drawn cannot be vouched for: it comes first.

    >>> footnote({"normalize": "filter", "ignore": ["bias"], "seed": 0, "span": 1.0, "points": 5,
    ...           "axes": 2}, "test episodes")
    'test episodes · filter-normalized directions without bias · seed 0 · span ±1 · 5×5 points'
    >>> footnote({"seed": 1}, refused=["the points are not certified"])
    'NOT TO BE TRUSTED: the points are not certified · seed 1'
    """
    parts = distrust(refused)
    parts += [group] if group else []
    rule = str(attrs.get("normalize", ""))
    left_out = words(attrs.get("ignore"))
    if said := plane_words(attrs):
        parts.append(said)
    elif rule:
        kind = "unnormalized" if rule == "none" else f"{rule}-normalized"
        without = f" without {', '.join(left_out)}" if left_out else ""
        parts.append(f"{kind} directions{without}")
    if str(attrs.get("seed", "null")) not in ("null", "None"):  # nothing is drawn for most kinds
        parts.append(f"seed {attrs['seed']}")
    if "span" in attrs:
        ends = np.atleast_1d(attrs["span"])
        parts.append(
            f"span ±{ends[0]:g}" if len(ends) == 1 else f"span {ends[0]:.3g} to {ends[1]:.3g}"
        )
    if "points" in attrs:
        points = int(attrs["points"])
        parts.append(f"{points}×{points} points" if attrs.get("axes") == 2 else f"{points} points")
    found = refinement(attrs)
    if found is not None:  # short: figures are narrow, the rest is in refinement_text
        note = f"{found['evaluations']} computed, others ±{found['achieved']:.1%} of the range"
        parts.append(f"{note} ({found['outcome']})")
    return " · ".join([*parts, *extra])


def distrust(refused: Sequence[str]) -> list[str]:
    """What a footnote begins with where what is drawn cannot be vouched for; else nothing."""
    return [f"NOT TO BE TRUSTED: {'; '.join(refused)}"] if refused else []


def plane_words(attrs: Mapping[str, Any]) -> str:
    """What a plane that is not random goes through; empty for random directions.

    >>> plane_words({"directions": "Hessian eigenvectors 1 and 2"}), plane_words({"normalize": "filter"})
    ('Hessian eigenvectors 1 and 2', '')
    """
    if said := attrs.get("directions"):
        return str(said)
    return _KINDS.get(plane_kind(attrs), "")


def plane_kind(attrs: Mapping[str, Any]) -> str:
    """The kind of plane of a surface, such as ``"random"`` or ``"eigen"``; empty where it is not known."""
    text = attrs.get("plane")
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except json.JSONDecodeError:
        return ""
    return str(found.get("kind", "")) if isinstance(found, dict) else ""


def refinement(attrs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known of the error of a surface that is evaluated in part; None where all of it is."""
    text = attrs.get("refinement")
    return None if text is None else dict(json.loads(text))


def refinement_text(attrs: Mapping[str, Any]) -> str:
    """How many points were evaluated and how good the others are, in words.

    >>> refinement_text({"points": 51, "axes": 2, "tolerance": 0.01, "refinement": '{"outcome": '
    ...     '"certified", "evaluations": 187, "achieved": 0.008, "held_out": 64, '
    ...     '"held_out_max_error": 0.004, "basin_achieved": null}'})
    '187 of 2601 points evaluated, the others to 0.8% of the range (certified, 64 held out: 0.4%)'
    """
    found = refinement(attrs)
    if found is None:
        return ""
    count = int(attrs["points"]) ** int(attrs.get("axes", 2))
    held = (
        f", {found['held_out']} held out: {found['held_out_max_error']:.1%}"
        if found["held_out"]
        else ""
    )
    words = (
        f"{found['evaluations']} of {count} points evaluated, the others to {found['achieved']:.1%} "
        f"of the range ({found['outcome']}{held})"
    )
    if found["basin_achieved"] is not None:
        words += f", in the basin to {found['basin_achieved']:.1%} of the loss"
    return words

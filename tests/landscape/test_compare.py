import json
import math

import numpy as np
import pytest
import torch
from problems import quadratic, symmetric

import landscape.compare as subject
from landscape.compare import Comparison
from landscape.flatness_tables import MEASURES
from landscape.objective import FunctionObjective
from landscape.sharpness import SharpnessReport

THETA = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
MATRIX = symmetric([4.0, 2.0, 1.0])
QUICK = ("lambda_max", "trace", "sam")


def bowl(scale=1.0, theta=THETA, **settings):
    made = quadratic(scale * MATRIX, theta)
    made.settings |= {"scale": scale, **settings}
    return made


def study(tmp_path, **options):
    chosen = {"points": 0, "line_points": 0, "measures": QUICK} | options
    return Comparison(tmp_path / "kept", **chosen)


@pytest.fixture
def computed(monkeypatch):
    """Counts how often sharpness is computed rather than read."""
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return real(*args, **options)

    real = subject.sharpness
    monkeypatch.setattr(subject, "sharpness", counted)
    return calls


def test_twice_the_curvature_is_a_hundred_percent_more(tmp_path):
    both = study(tmp_path, measures=("gradient_norm", *QUICK))
    both.add("one", {"data": bowl()})
    both.add("two", {"data": bowl(2.0)})
    assert both.verdict() == ["On data, against one: two: λ max +100 %, trace +100 %, SAM +100 %."]
    (table,) = both.tables()
    assert table.title == "Flatness, data"
    assert list(table.columns) == ["", "loss", "gradient norm", "λ max", "trace", "SAM"]
    assert [row[0] for row in table.rows] == ["one", "two"]
    for row, scale in zip(table.rows, (1, 2), strict=True):
        loss = scale * 0.5 * float(THETA @ MATRIX @ THETA)
        slope = scale * float((MATRIX @ THETA).norm())
        assert [cell.value for cell in row[1:4]] == pytest.approx([loss, slope, 4 * scale])
        assert row[4].value == pytest.approx(7 * scale, rel=0.02)  # an estimate
        assert row[3].low - 1e-12 <= 4 * scale <= row[3].high + 1e-12
        assert row[3].error is None
        assert row[4].error is not None
        assert not any(cell.flag for cell in row[1:])
    assert both.doubts == []
    assert both.report("data", "two")["lambda_max"].value == pytest.approx(8)


def test_less_and_signs(tmp_path):
    three = study(tmp_path, measures=("lambda_max",))
    three.add("a", {"data": bowl()})
    three.add("b", {"data": bowl(0.25)})
    three.add("c", {"data": bowl(-1.0)})
    assert three.verdict() == ["On data, against a: b: λ max −75 %; c: λ max 4 → -1."]
    slope = study(tmp_path, measures=("gradient_norm",))
    slope.add("a", {"data": bowl()})
    assert slope.verdict() == []  # nothing to compare with
    slope.add("b", {"data": bowl(4.0)})
    assert slope.verdict() == ["On data, against a: b: gradient norm +300 %."]


def test_groups_have_tables_of_their_own(tmp_path):
    two = study(tmp_path)
    for label, scale in (("a", 1.0), ("b", 3.0)):
        two.add(label, {"train": bowl(scale), "test": bowl(2 * scale)})
    assert [table.title for table in two.tables()] == ["Flatness, train", "Flatness, test"]
    assert two.tables()[1].rows[1][2].value == pytest.approx(24)
    assert two.verdict() == [
        f"On {group}, against a: b: λ max +200 %, trace +200 %, SAM +200 %."
        for group in ("train", "test")
    ]


def test_what_is_kept_is_used_again(tmp_path, computed):
    for _ in range(2):
        again = study(tmp_path)
        again.add("a", {"data": bowl(pair=(1, 2))})
        assert again.tables()[0].rows[0][2].value == pytest.approx(4)
    assert len(computed) == 1


def test_a_longer_list_of_measures_is_computed_and_a_shorter_one_read(tmp_path, computed):
    longer = ("gradient_norm", *QUICK)  # it has no settings to tell it by
    for measures, expected in ((("trace",), 1), (QUICK, 2), (("sam", "trace"), 2), (longer, 3)):
        again = study(tmp_path, measures=measures)
        again.add("a", {"data": bowl()})
        assert len(computed) == expected
        assert len(again.tables()[0].rows[0]) == 2 + len(measures)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"seed": 1}),
        ({}, {"settings": {"sam": {"rho": 0.3}}}),
        ({"settings": {"sam": {"rho": 0.3}}}, {}),
        ({}, {"objective": bowl(2.0)}),
        ({}, {"objective": bowl(data="other")}),
        ({}, {"objective": bowl(theta=2 * THETA)}),
        (
            {},
            {
                "objective": FunctionObjective(
                    lambda t: (t**4).sum(), THETA, settings={"scale": 1.0}
                )
            },
        ),
    ],
)
def test_what_is_kept_of_something_else_is_not_used(tmp_path, computed, first, then):
    for options in (first, then):
        options = dict(options)
        objective = options.pop("objective", bowl())
        last = study(tmp_path, **options)
        last.add("a", {"data": objective})
    assert len(computed) == 2
    fresh = subject.sharpness(
        objective, QUICK, seed=options.get("seed", 0), settings=options.get("settings")
    )
    assert [cell.value for cell in last.tables()[0].rows[0][2:]] == [
        fresh[name].value for name in QUICK
    ]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: json.dumps(json.loads(text) | {"measures": 3}),
        lambda text: json.dumps(json.loads(text) | {"point": None}),
        lambda text: text.replace('"interval": [', '"interval": [], "x": ['),
        lambda text: text.replace('"tol": 0.001', '"old": 0.001'),
        lambda text: "\x80\xff",
    ],
)
def test_a_damaged_report_is_computed_again(tmp_path, computed, damage):
    study(tmp_path).add("a", {"data": bowl()})
    (file,) = (tmp_path / "kept").glob("*.json")
    whole = file.read_text()
    file.write_bytes(damage(whole).encode("latin-1", "replace"))
    assert file.read_text("latin-1") != whole
    again = study(tmp_path)
    again.add("a", {"data": bowl()})
    assert len(computed) == 2
    assert file.read_text() == whole
    assert SharpnessReport.from_json(whole)["lambda_max"].value == pytest.approx(4)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_unconverged_value_is_flagged_wherever_it_is_shown(tmp_path, monkeypatch):
    # No residual is good enough.
    monkeypatch.setattr(
        "landscape.krylov.wanted.accepted", lambda values, *_: np.full_like(values, -1)
    )
    for _ in range(2):  # computed, then read
        doubted = study(tmp_path)
        doubted.add("a", {"data": bowl()})
        row = doubted.tables()[0].rows[0]
        assert [cell.flag for cell in row[1:]] == [False, True, False, False]
        assert "not converged" in row[2].note
        (doubt,) = doubted.doubts
        assert doubt.startswith("a, data: λ max: not converged after")


def test_a_value_that_is_not_finite_is_flagged(tmp_path):
    def cliff(t):
        return torch.where(t.sum() > 0, torch.full_like(t.sum(), math.inf), t.sum())

    edge = FunctionObjective(cliff, torch.full((2,), -1e-3, dtype=torch.float64))
    doubted = study(tmp_path, measures=("sam",))
    doubted.add("a", {"data": bowl()})
    doubted.add("b", {"data": edge})
    cell = doubted.tables()[0].rows[1][2]
    assert cell.flag
    assert cell.note == "the value is inf"
    assert doubted.doubts == ["b, data: SAM: the value is inf"]
    assert doubted.verdict()[0].endswith("→ inf.")


def test_surfaces_lines_page_and_figures(tmp_path):
    made = Comparison(
        tmp_path / "kept", points=3, line_points=3, measures=("lambda_max",), seed=5, span=0.5
    )
    told = []
    made.add("a", {"data": bowl()}, lambda *what: told.append(what), {"rate": 0.1})
    made.add("b", {"data": bowl(2.0)})
    surface = made.subjects[0].surfaces["data"]
    assert surface["loss"].shape == (3, 3)
    assert (surface.attrs["seed"], surface.attrs["span"], surface.attrs["label"]) == (5, 0.5, "a")
    assert made.subjects[0].lines["data"]["loss"].shape == (3,)
    assert told == [
        *[(done, 3, "data: line") for done in (1, 2, 3)],
        *[(done, 9, "data: surface") for done in range(1, 10)],
        (1, 1, "data: sharpness"),
    ]
    page = made.write(tmp_path / "out" / "page.html", lead="The answer.", settings={"why": "test"})
    text = page.read_text(encoding="utf-8")
    assert "The answer." in text
    assert "λ max" in text
    assert "<script src" not in text
    figures = {path.name for path in (tmp_path / "kept" / "figures").iterdir()}
    assert figures == {
        f"data-{name}.{kind}"
        for name in ("surfaces", "contours", "differences", "line", "rise")
        for kind in ("pdf", "txt")
    }
    other = Comparison(tmp_path / "kept", points=3, line_points=0, seed=6, span=0.5)
    with pytest.raises(ValueError, match="holds another surface"):
        other.add("a", {"data": bowl()})


def test_labels_that_make_one_file_name_are_refused(tmp_path):
    two = study(tmp_path, measures=("sam",))
    two.add("run 1", {"data": bowl()})
    for label in ("run 1", "Run-1"):
        with pytest.raises(ValueError, match="cannot be told from 'run 1'"):
            two.add(label, {"data": bowl(2.0)})
    for label in ("модель", "模型"):
        two.add(label, {"data": bowl(2.0)})
    assert len(list((tmp_path / "kept").glob("*.json"))) == 3
    assert len(two.subjects) == 3


@pytest.mark.parametrize("options", [{"measures": ("sharp",)}, {"settings": {"sharp": {}}}])
def test_an_unknown_measure_is_refused_before_anything_is_computed(tmp_path, options):
    with pytest.raises(ValueError, match=r"unknown measure 'sharp': expected any of gradient_norm"):
        study(tmp_path, **options)


def test_the_caption_states_the_radii_in_use(tmp_path):
    made = study(tmp_path, measures=MEASURES, settings={"sam": {"rho": 0.125}})
    made.add("a", {"data": bowl()})
    caption = made.tables()[0].caption
    assert caption.endswith(
        "Radii: SAM: ρ = 0.125, ASAM: ρ = 0.5, worst case: ρ = 0.05, average case: σ = 0.01."
    )


def test_verdicts_at_a_glance_and_in_full(tmp_path):
    three = study(tmp_path, measures=("gradient_norm", "lambda_max", "trace"))
    for label, scale in (("a", 1.0), ("b", 0.5), ("c", 3.0)):
        three.add(label, {"data": bowl(scale)})
    short, full = three.verdicts()
    (table,) = short.tables
    assert table.title == "Against a, data"
    assert list(table.columns) == [
        "",
        "λ max",
        "trace",
    ]  # a gradient's norm is neither flat nor sharp
    assert [row[0] for row in table.rows] == ["b", "c"]
    assert [row[1].removesuffix(" *") for row in table.rows] == [
        "flatter (−50 %)",
        "sharper (+200 %)",
    ]
    assert [t.title for t in full.tables] == ["b against a, data", "c against a, data"]
    assert len(full.tables[0].rows) >= 3
    text = three.write(tmp_path / "p.html", figures=False).read_text(encoding="utf-8")
    assert (
        text.index("Against a, data")
        < text.index("Flatness, data")
        < text.index("b against a, data")
    )
    alone = study(tmp_path / "one", measures=("trace",))
    alone.add("a", {"data": bowl()})
    assert [section.tables for section in alone.verdicts()] == [[], []]

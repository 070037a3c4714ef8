"""Figures as published: what they draw, on which scales, in which words, and as which files."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
import xarray as xr
from matplotlib.contour import QuadContourSet
from matplotlib.text import Text
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D

from landscape import figures
from landscape.plot import style
from landscape.topology import analyze

GRID = np.linspace(-1, 1, 9)
X, Y = np.meshgrid(GRID, GRID)


def surface(label="MAML", scale=1.0, **attrs) -> xr.Dataset:
    loss = 0.01 + scale * (X**2 + 2 * Y**2)
    told = {"label": label, "normalize": "filter", "ignore": ["bias", "norm"], "seed": 3, "span": 1.0,
            "points": 9, "axes": 2, "group": "test data", "objective": '{"loss": "cross_entropy"}'}  # fmt: skip
    return xr.Dataset(
        {"loss": (("beta", "alpha"), loss)}, {"alpha": GRID, "beta": GRID}, told | attrs
    )


def line(label="VGG-9", lift=0.0, accuracy=True) -> xr.Dataset:
    data = {"loss": ("alpha", GRID**2 + lift)}
    if accuracy:
        data["accuracy"] = ("alpha", 0.9 - GRID**2 / 4)
    attrs = {"label": label, "normalize": "filter", "seed": 0, "span": 1.0, "points": 9, "axes": 1}
    return xr.Dataset(data, {"alpha": GRID}, attrs)


def density(label="ResNet-20") -> xr.Dataset:
    g = np.linspace(-4, 4, 81)
    values = np.exp(-g * g / 2) / math.sqrt(2 * math.pi)
    return xr.Dataset(
        {
            "density": ("grid", values),
            "cumulative": ("grid", np.cumsum(values) / values.sum()),
            "outlier": ("outliers", [3.5]),
            "outlier_residual": ("outliers", [0.01]),
        },
        {"grid": g},
        {"label": label, "params": 1000, "width": 0.3, "seed": 7, "settings": '{"probes": 4}'},
    )


def runs() -> list[figures.Run]:
    # Four runs a method; sharpness rises with the error but for one pair.
    errors = [5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5]
    sharp = [1.0, 2.0, 4.0, 3.0, 30.0, 40.0, 50.0, 60.0]
    return [
        figures.Run("MAML" if i < 4 else "Sharp-MAML", {"λ max": s, "flat": 0.1 * i}, e)
        for i, (s, e) in enumerate(zip(sharp, errors, strict=True))
    ]


def everything():
    many = [surface("A"), surface("B", 2.0), surface("C", 0.5), surface("D", 3.0)]
    plane = surface()
    return {
        "figure1": figures.li2018_figure1(*many[:2]),
        "figure2": figures.li2018_figure2([line("a"), line("b")], [line("a", 0.2), line("b", 0.3)]),
        "figure5": figures.li2018_figure5(many),
        "sharp": figures.sharp_maml_landscape(many),
        "density": figures.hessian_density([density(), density("no batch norm")]),
        "relation": figures.sharpness_vs_generalization(runs()),
        "topology": figures.topology(plane, analyze(plane)),
    }


@pytest.fixture(scope="module")
def all_figures():
    return everything()


def texts(figure) -> list[Text]:
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def test_files_are_vectors_with_a_caption(all_figures, tmp_path):
    for name, figure in all_figures.items():
        pdf, caption = figures.save(figure, tmp_path / f"{name}.pdf")
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF") and b"/Subtype /Image" not in content, name
        assert b"/CreationDate" not in content and b"/Type3" not in content
        assert caption.read_text(encoding="utf-8") == figures.caption(figure) != ""


def test_text_is_readable_at_column_width(all_figures):
    for name, figure in all_figures.items():
        width = figure.get_size_inches()[0]
        assert width in (style.COLUMN_WIDTH, style.PAGE_WIDTH), name
        small = [t.get_text() for t in texts(figure) if t.get_fontsize() < 6]
        assert not small, (name, small)


def test_every_axis_is_named(all_figures):
    for name, figure in all_figures.items():
        shown = {t.get_text() for t in texts(figure)}
        wanted = {
            "figure1": {"α", "β", "loss"}, "sharp": {"α", "β", "loss"}, "figure5": {"α", "β"},
            "figure2": {"loss", "accuracy, %"}, "density": {"density", "eigenvalue λ"},
            "relation": {"sharpness", "test error"},
            "topology": {"loss at the minimum", "loss at the pass"},
        }[name]  # fmt: skip
        assert wanted <= shown, name


def test_captions_hold_all_settings(all_figures):
    one = figures.caption(all_figures["figure1"])
    assert "filter-normalized directions without bias, norm · seed 3 · span ±1 · 9×9 points" in one
    assert "one logarithmic scale" in one and 'objective: {"loss": "cross_entropy"}' in one
    assert "without skip connections\n" in one and "\nwith skip connections\n" in one
    assert "A, B, C and D" in figures.caption(all_figures["sharp"])
    assert '{"probes": 4}' in figures.caption(all_figures["density"])
    assert "seed: 7" in figures.caption(all_figures["density"])
    assert "λ max: τ = 0.93" in figures.caption(all_figures["relation"])
    assert "8 neighbours" in figures.caption(all_figures["topology"])


def test_figure_1_shares_a_logarithmic_scale():
    figure = figures.li2018_figure1(surface("x"), surface("y", 100.0))
    first, second = (a for a in figure.axes if isinstance(a, Axes3D))
    assert first.get_zlim() == second.get_zlim()
    (body,) = (c for c in second.collections if isinstance(c, Poly3DCollection))
    # A patch has the mean height of its corners, which are logarithms.
    assert math.log10(100) < body.get_array().max() < math.log10(300.01)
    titles = [t.get_text() for t in texts(figure)]
    assert {"without skip connections", "with skip connections"} <= set(titles)
    with pytest.raises(ValueError, match="positive losses"):
        figures.li2018_figure1(surface() - 1.0, surface())
    figures.li2018_figure1(
        (surface() - 1.0).assign_attrs(surface().attrs), surface(), log=False
    )  # a linear scale has no such limit
    with pytest.raises(ValueError, match="must not be compared: seed"):
        figures.li2018_figure1(surface(), surface(seed=4))


def test_figure_5_has_the_same_labelled_lines_in_all_panels():
    chosen = [0.1, 0.6, 1.1, 2.1]
    figure = figures.li2018_figure5(
        [surface("A"), surface("B", 2.0)], levels=chosen[::-1], log=False
    )
    for axes in figure.axes:
        (lines,) = (c for c in axes.collections if isinstance(c, QuadContourSet))
        assert lines.levels.tolist() == pytest.approx(chosen)
        written = {t.get_text() for t in lines.labelTexts}
        assert written and written <= {"0.1", "0.6", "1.1", "2.1"}
    assert "lines at 0.1, 0.6, 1.1, 2.1" in figures.caption(figure)
    for text in figure.axes[0].collections[0].labelTexts:  # a label lies on the line it names
        x, y = text.get_position()
        assert 0.01 + x**2 + 2 * y**2 == pytest.approx(float(text.get_text()), abs=0.12)
    with pytest.raises(ValueError, match="no level lies between"):
        figures.li2018_figure5([surface()], levels=[50.0])


def test_figure_5_on_a_logarithmic_scale():
    figure = figures.li2018_figure5([surface("A", 500.0)])
    (lines,) = (c for c in figure.axes[0].collections if isinstance(c, QuadContourSet))
    values = 10.0**lines.levels
    assert all(re.fullmatch(r"[13]e[+-]\d\d", f"{v:.0e}") for v in values)
    assert values == pytest.approx([float(f"{v:.0e}") for v in values]) and len(values) > 6


def test_figure_2_has_loss_left_and_accuracy_right():
    figure = figures.li2018_figure2(line("a"), line("a", 0.5))
    left, right = figure.axes
    assert [len(a.lines) for a in (left, right)] == [2, 2]
    solid, dashed = left.lines
    assert solid.get_linestyle() == "-" != dashed.get_linestyle()
    np.testing.assert_allclose(dashed.get_ydata() - solid.get_ydata(), 0.5, atol=1e-6)
    np.testing.assert_allclose(right.lines[0].get_ydata(), 90 - 25 * GRID**2, atol=1e-4)
    assert right.get_ylabel() == "accuracy, %" and left.get_ylabel() == "loss"
    assert left.yaxis.label.get_color() == solid.get_color() != right.lines[0].get_color()
    with pytest.raises(ValueError, match="as many"):
        figures.li2018_figure2([line("a"), line("b")], [line("a")])
    with pytest.raises(ValueError, match="accuracy"):
        figures.li2018_figure2(line(accuracy=False))


def test_sharp_maml_has_one_scale():
    figure = figures.sharp_maml_landscape([surface("MAML", 4.0), surface("Sharp-MAML low")])
    assert len({a.get_zlim() for a in figure.axes if isinstance(a, Axes3D)}) == 1
    with pytest.raises(ValueError, match="at most 4"):
        figures.sharp_maml_landscape([surface(str(i)) for i in range(5)])


def test_the_density_is_logarithmic_and_dotted_at_one_eigenvalue():
    figure = figures.hessian_density({"net": density()})
    upper = figure.axes[0]
    assert upper.get_yscale() == "log" and "\nnet\n" in figures.caption(figure)
    one = 1 / (1000 * 0.3 * math.sqrt(2 * math.pi))
    heights = [float(np.ravel(h.get_ydata())[0]) for h in upper.lines if h.get_linestyle() == ":"]
    assert any(h == pytest.approx(one) for h in heights)


def test_kendall_by_counting_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    pairs = itertools.combinations(range(12), 2)
    tau = np.mean([np.sign((x[i] - x[j]) * (y[i] - y[j])) for i, j in pairs])
    found, low, high = figures.kendall(x, y)
    assert found == pytest.approx(tau)
    half = 1.96 * math.sqrt(0.437 / 8)
    assert math.atanh(high) - math.atanh(found) == pytest.approx(half)
    assert math.atanh(found) - math.atanh(low) == pytest.approx(half)


def test_kendall_at_the_ends():
    tau, low, high = figures.kendall(range(6), range(6))
    assert tau == pytest.approx(1) and 0 < low < 1 - 2 / 30 < high < 1
    assert figures.kendall(range(6), [-v for v in range(6)])[1:] == (-high, -low)
    assert np.isnan(figures.kendall([1, 1, 1, 1, 1], range(5))).all()
    assert figures.kendall([1, 2, 3, 4], [1, 2, 3, 4])[0] == pytest.approx(1)
    assert np.isnan(figures.kendall([1, 2, 3, 4], [1, 2, 3, 4])[1:]).all()


def test_the_interval_of_kendall_covers():
    """Of normal pairs with τ = 2/π · arcsin ρ, about 95 % of intervals hold it."""
    rng = np.random.default_rng(0)
    truth = 2 / math.pi * math.asin(0.6)
    held = 0
    for _ in range(400):
        x, e = rng.normal(size=(2, 20))
        _, low, high = figures.kendall(x, 0.6 * x + 0.8 * e)
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.985


def test_sharpness_against_generalization():
    figure = figures.sharpness_vs_generalization(runs(), titles={"flat": "flatness"})
    first, second = figure.axes
    assert first.get_xscale() == "log" and second.get_xscale() == "linear"  # "flat" has a 0
    assert [len(a.lines) for a in figure.axes] == [2, 2]
    maml, sharp = first.lines
    assert list(maml.get_xdata()) == [1, 2, 4, 3] and list(sharp.get_ydata()) == [7, 7.5, 8, 8.5]
    assert (maml.get_color(), maml.get_marker()) != (sharp.get_color(), sharp.get_marker())
    assert maml.get_marker() != sharp.get_marker()
    # One pair of 28 is out of order.
    assert first.get_title().startswith("λ max\nτ = 0.93 [")
    assert second.get_title().startswith("flatness\nτ = 1.00 [")
    legend = {t.get_text() for t in figure.legends[0].get_texts()}
    assert legend == {"MAML", "Sharp-MAML"}
    one = figures.sharpness_vs_generalization(runs(), ["flat"], generalization="gap")
    assert len(one.axes) == 1 and one.axes[0].get_ylabel() == "gap"
    with pytest.raises(ValueError, match="'trace' is not a measure of every run"):
        figures.sharpness_vs_generalization(runs(), ["trace"])
    with pytest.raises(ValueError, match="at least one Run"):
        figures.sharpness_vs_generalization([])
    with pytest.raises(ValueError, match="no measure in common"):
        figures.sharpness_vs_generalization([figures.Run("a", {}, 1.0)])


def test_saving(tmp_path):
    figure = figures.li2018_figure5([surface()])
    first, second = (figures.save(figure, tmp_path / f"{n}.pdf")[0] for n in "ab")
    assert first.read_bytes() == second.read_bytes()  # the same figure, the same bytes
    svg = figures.save(figure, tmp_path / "f.svg")[0]
    assert svg.read_text() == figures.save(figure, tmp_path / "g.svg")[0].read_text()
    assert figures.save(figure, tmp_path / "f.png")[0].read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"expected a name ending in \.pdf, \.svg, \.png"):
        figures.save(figure, tmp_path / "f.doc")
    with pytest.raises(ValueError, match="does not exist"):
        figures.save(figure, tmp_path / "nowhere" / "f.pdf")
    figure.set_label("")
    assert figures.save(figure, tmp_path / "bare.pdf") == [tmp_path / "bare.pdf"]

import math

import numpy as np
import pytest
from problems import quadratic, symmetric

from landscape import plot
from landscape.sharpness.consistency import RELATIONS, consistency, quadratic_up_to
from landscape.sharpness.measurement import Measurement


def row(name, value, half=0.0, variants=(), **settings):
    return Measurement(
        name, value, None, (value - half, value + half), settings, variants=tuple(variants)
    )


def rows():
    """A loss whose average case bends down beyond 0.02, and a worst case that is quadratic throughout."""

    def bent(sigma):
        value = 0.5 * sigma**2 * 100 * (1.0 if sigma < 0.03 else 0.5)
        return row("average", value, 0.01 * value, sigma=sigma)

    def straight(rho, m="all"):
        share = 1.0 if m == "all" else 1.7
        return row("worst_l2", 0.5 * rho**2 * 8 * share, rho=rho, m=m)

    head, *others = (bent(sigma) for sigma in (0.02, 0.01, 0.05))
    worst = straight(0.1)
    others_worst = [straight(0.5), straight(0.1, 128), straight(0.5, 128)]
    return {
        "average": row("average", head.value, 0.0, others, sigma=0.02),
        "trace": row("trace", 100.0, 5.0),
        "worst_l2": row("worst_l2", worst.value, 0.0, others_worst, rho=0.1, m="all"),
        "lambda_max": row("lambda_max", 8.0, 0.1),
        "average_adaptive": row("average_adaptive", 1.0, sigma=0.1),  # its limit was not measured
    }


def test_rises_become_curvatures_by_radius():
    found = consistency(rows(), "net")
    assert found["relation"].values.tolist() == ["average", "worst_l2"]
    assert found.attrs["label"] == "net"
    average = found.sel(relation="average")
    assert average["radius"].values.tolist() == [0.01, 0.02, 0.05]
    np.testing.assert_allclose(average["curvature"], [100, 100, 50])
    np.testing.assert_allclose(average["curvature_high"][[0, 2]], [101, 50.5])
    assert [float(average[f"limit{e}"]) for e in ("", "_low", "_high")] == [100, 95, 105]


def test_batches_of_another_size_are_not_on_the_ladder():
    worst = consistency(rows()).sel(relation="worst_l2")
    np.testing.assert_allclose(worst["curvature"], [8, 8, math.nan])
    np.testing.assert_array_equal(worst["radius"], [0.1, 0.5, math.nan])


def test_where_the_quadratic_model_ends():
    told = quadratic_up_to(consistency(rows()))
    assert told == {"average": (0.01, 0.02), "worst_l2": (0.1, 0.5)}
    nowhere = rows() | {"trace": row("trace", 10.0)}
    assert all(math.isnan(end) for end in quadratic_up_to(consistency(nowhere))["average"])


def test_nothing_to_compare_is_said():
    with pytest.raises(ValueError, match="average with trace"):
        consistency({"average": rows()["average"], "sam": row("sam", 1.0)})


def test_a_quadratic_agrees_with_itself_at_every_radius():
    from landscape.sharpness import sharpness

    bowl = quadratic(symmetric([4.0, 2.0, 1.0, 0.5]))
    names = {name for r in RELATIONS[::2] for name in (r.measure, r.limit)}
    found = consistency(sharpness(bowl, sorted(names)))
    for name, (low, high) in quadratic_up_to(found).items():
        radii = found.sel(relation=name)["radius"].values
        assert (low, high) == (np.nanmin(radii), np.nanmax(radii))


@pytest.mark.parametrize("backend", ["plotly", "matplotlib"])
def test_panels_share_one_scale(backend):
    figure = plot.consistency([consistency(rows(), "a"), consistency(rows(), "b")], backend)
    if backend == "plotly":
        ranges = {figure.layout[name].range for name in ("yaxis", "yaxis2")}
        marks = [t for t in figure.data if t.mode == "lines+markers"]
        assert len(marks) == 4 and sum(bool(t.showlegend) for t in marks) == 2
        assert marks[0].customdata[2][1] == pytest.approx(0.5)  # half of the curvature at 0.05
    else:
        ranges = {axes.get_ylim() for axes in figure.axes}
    assert len(ranges) == 1


def test_a_limit_of_zero_or_less_is_drawn_without_failing():
    negative = rows() | {"trace": row("trace", -100.0, 5.0), "lambda_max": row("lambda_max", 0.0)}
    figure = plot.consistency(consistency(negative))
    marks = [t for t in figure.data if t.mode == "lines+markers"]
    assert marks[0].customdata[0][1] == pytest.approx(-1.0)
    assert len(marks) == 1  # nothing is a share of zero
    with pytest.raises(ValueError, match="nothing to draw"):
        plot.consistency(consistency({k: negative[k] for k in ("worst_l2", "lambda_max")}))
    with pytest.raises(ValueError, match="unknown backend"):
        plot.consistency(consistency(rows()), "gnuplot")

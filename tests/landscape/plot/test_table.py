"""Tables: digits decided by errors, marks for what is not to be trusted, escaping."""

from __future__ import annotations

import math

import pytest

from landscape.plot.page import Cell, Table
from landscape.plot.table import latex_escape


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(0.12345, 0.0042), "0.123 ± 0.004"),
        (Cell(0.6, 0.0123), "0.600 ± 0.012"),
        (Cell(1234.5, 56.0), "1230 ± 60"),
        (Cell(-0.5, 0.25), "−0.5 ± 0.2"),
        (Cell(3.0, 0.0), "3 ± 0"),
        (Cell(3.0, math.nan), "3"),
        (Cell(0.0), "0"),
        (Cell(123456.0), "123456"),
        (Cell(2.5e9, 3e7), "(2.50 ± 0.03)×10⁹"),
        (Cell(0.5, low=0.45, high=0.56), "0.50 [0.45, 0.56]"),
        (Cell(None), "–"),
        (Cell(math.nan), "NaN"),
        (Cell(-math.inf), "−∞"),
    ],
)
def test_digits_follow_the_error(cell: Cell, text: str) -> None:
    assert str(cell) == text


def test_flags_are_visible_and_explained() -> None:
    table = Table("t", ["who", "λ"], [["a", Cell(1.0, note="not <converged>", flag=True)]])
    html = table.to_html()
    assert 'class="num flag"' in html and "⚠" in html
    assert 'title="not &lt;converged&gt;"' in html  # tooltip
    assert "<li>not &lt;converged&gt;</li>" in html  # and in print
    assert "⚠" in Table("t", ["x"], [[Cell(math.nan)]]).to_html()


def test_html_is_escaped() -> None:
    html = Table("<i>", ["<b>"], [["<script>alert(1)</script>"]], "<u>").to_html()
    assert not any(tag in html for tag in ("<i>", "<script", "<u>"))


def test_latex_rows() -> None:
    table = Table("t", ["method", "λ_max"], [["a_b & c", Cell(1.5, 0.2, flag=True, note="50%")]])
    rows = table.to_latex(environment=False)
    assert rows == "a\\_b \\& c & $1.5 \\pm 0.2$\\textsuperscript{\\dag} \\\\\n"
    whole = table.to_latex()
    assert whole.startswith("\\begin{tabular}{lr}\n\\toprule\n")
    assert "$\\lambda$\\_max" in whole and "% 50\\%" in whole


def test_latex_escape_leaves_no_command() -> None:
    assert latex_escape("\\input{x}") == "\\textbackslash{}input\\{x\\}"


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 entries, expected 2"):
        Table("t", ["a", "b"], [["x", "y"], ["x"]])


def test_a_value_of_rounding_noise_takes_the_unit_of_its_interval():
    assert str(Cell(5e-9, low=-0.03, high=0.03)) == "0.00 [−0.03, 0.03]"


def test_no_negative_zero():
    assert str(Cell(0.012, low=-0.0004, high=0.03)) == "0.012 [0.000, 0.030]"

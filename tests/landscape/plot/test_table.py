"""Tables: digits decided by errors, marks for what is not to be trusted, escaping."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

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


NASTY = Table(
    "t",
    ["method (%)", "λ_max, 1/η²", "τ"],
    [
        [
            'a_b & c #1 ~^{} "x|y"',
            Cell(1.5, 0.2, flag=True, note="‖Hv − λv‖ > 10⁻³·λ₁"),
            Cell(None),
        ],
        ["é Ł Σ", Cell(-1.2e-7, 2e-9, flag=True, note="not <converged>, 50 %"), Cell(math.nan)],
        ["∞ → ½", Cell(math.inf), Cell(0.5, low=0.1, high=0.9, note="only a remark")],
    ],
)


def test_flagged_values_point_to_their_notes() -> None:
    latex = NASTY.to_latex()
    assert r"$1.5 \pm 0.2$\textsuperscript{\dag a}" in latex
    assert r"$(-1.20 \pm 0.02) \times 10^{-7}$\,\textsuperscript{\dag b}" in latex
    after = latex.partition(r"\end{tabular}")[2]
    printed = [text for text in after.splitlines() if not text.startswith("%") and text]
    assert printed == [
        r"\par{\footnotesize\textsuperscript{\dag a}~$\Vert$Hv $-$ $\lambda$v$\Vert$ \textgreater{} "
        r"10$^{-3}$$\cdot$$\lambda$$_{1}$\par}",
        r"\par{\footnotesize\textsuperscript{\dag b}~not \textless{}converged\textgreater{}, 50 \%\par}",
    ]
    assert "% only a remark" in after  # not flagged: for who reads the source
    assert r"$0.5\ [0.1, 0.9]$" in latex


def test_one_note_needs_no_letter() -> None:
    cells = [[Cell(v, note="noisy", flag=True)] for v in (1.0, 2.0)]
    latex = Table("t", ["x"], cells).to_latex()
    assert latex.count(r"\textsuperscript{\dag}") == 3 and latex.count("noisy") == 2


def test_many_notes_have_letters_in_order() -> None:
    cells = [[Cell(1.0, note=f"note {i}", flag=True)] for i in range(28)]
    latex = Table("t", ["x"], cells).to_latex()
    assert r"\dag z}~note 25" in latex and r"\dag ab}~note 27" in latex


def test_latex_is_ascii_whatever_is_written() -> None:
    everything = "".join(map(chr, range(32, 0x3000)))
    assert latex_escape(everything).isascii()
    assert latex_escape("αΩλ") == r"$\alpha$$\Omega$$\lambda$"
    assert latex_escape("Β ο") == "B o"  # Greek letters that TeX writes as Latin ones
    assert latex_escape("ü ç") == r"\"{u} \c{c}"
    assert latex_escape("x⁻¹²₃") == "x$^{-12}$$_{3}$"
    assert latex_escape("漢") == "?"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_pdflatex_sets_it(tmp_path: Path) -> None:
    letters = "".join(map(chr, [*range(32, 0x180), *range(0x386, 0x3CF), *range(0x2070, 0x208F)]))
    parts = [
        NASTY.to_latex(),
        r"\begin{tabular}{lrr}" + NASTY.to_latex(environment=False) + r"\end{tabular}",
        latex_escape(letters + "±−–—×·∞≤≥≈≠√∇∂∈∼→←↑↓…°½†⚠‖‘’“”"),
    ]
    body = "\n\n".join(parts)
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    (tmp_path / "t.tex").write_text(f"{head}{body}\n\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout and (tmp_path / "t.pdf").stat().st_size > 10_000

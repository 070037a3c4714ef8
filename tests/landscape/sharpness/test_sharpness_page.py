import pytest
from problems import conv_objective

from landscape.plot.table import Cell
from landscape.sharpness import sharpness
from landscape.sharpness_page import write

NAMES = ("sam", "lambda_max", "worst_l2", "average")
FEW = {"average": {"pairs": 4}, "worst_l2": {"steps": 3, "m": None}, "lambda_max": {"k": 2}}


@pytest.fixture(scope="module")
def reports():
    objective = conv_objective(batch_size=6)
    first = sharpness(objective, NAMES, settings=FEW)
    second = sharpness(objective, NAMES, settings=FEW, theta=objective.theta * 1.2)
    return {"first": first, "second & last": second}


def test_one_report_has_its_numbers_and_its_radii(reports, tmp_path):
    page = write({"first": reports["first"]}, tmp_path / "page.html")
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and "Which radius?" in html
    assert "Which is flatter?" not in html
    for name in NAMES:
        assert name in html
    assert "rank=2" in html and "rho=0.25" in html
    assert "worst_l2 from" in html or "worst_l2 at" in html  # where the loss is quadratic
    assert "What to distrust" in html  # the loss is above that of guessing


def test_several_are_held_against_the_first(reports, tmp_path):
    html = write(reports, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "second &amp; last against first" in html
    assert any(word in html for word in ("flatter", "sharper", "cannot tell"))
    assert html.count("All measures, ") >= 2
    first, second = (report["sam"].value for report in reports.values())
    (table,) = html.split("second &amp; last against first</")[1:] or [
        html.split("against first")[1]
    ]
    row = table[table.index("sam") :]
    places = [row.index(str(Cell(value))) for value in (first, second)]
    assert places == sorted(places) and first != second


def test_without_a_ladder_there_is_no_figure(reports, tmp_path):
    objective = conv_objective()
    html = write({"a": sharpness(objective, "sam")}, tmp_path / "a.html").read_text("utf-8")
    assert "Which radius?" not in html and 'id="plotly"' not in html


def test_no_report_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no report"):
        write({}, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_command_writes_it_from_saved_reports(reports, tmp_path, monkeypatch, capsys):
    from landscape.cli import main

    monkeypatch.chdir(tmp_path)
    for name, report in zip("ab", reports.values(), strict=True):
        (tmp_path / f"{name}.json").write_text(report.to_json(), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["sharpness", "a.json", "b.json", "--page", "both.html"])
    assert stop.value.code == 0
    assert "page: both.html" in capsys.readouterr().out
    assert "b against a" in (tmp_path / "both.html").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["sharpness", "a.json", "--page", "both.pdf"])
    assert stop.value.code == 1 and "--page is 'both.pdf'" in capsys.readouterr().err

"""The command `landscape topology`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from wells import plane, wells

from landscape import save
from landscape.cli import main


def _run(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["topology", *map(str, words)])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_the_command(capsys, tmp_path):
    file, page, pdf = (tmp_path / name for name in ("s.nc", "t.html", "t.pdf"))
    data = plane(wells())
    save(data, file)
    status, out, _ = _run(capsys, file, "--out", page, "--level", "2.5")
    assert status == 0 and "Barriers" in out and "below loss 2.5: 2 components" in out
    assert "beware" not in out and "plotly" in page.read_text().lower()
    assert _run(capsys, file, "--out", pdf)[0] == 0
    assert pdf.read_bytes()[:4] == b"%PDF" and "8 neighbours" in pdf.with_suffix(".txt").read_text()
    status, out, _ = _run(capsys, file, "--json")
    assert status == 0 and len(json.loads(out)["minima"]) == 2
    status, _, err = _run(capsys, file, "--out", tmp_path / "t.docx")
    assert status != 0 and "expected a name ending in .html" in err
    data["evaluated"].values[0, 0] = 0
    data["loss"].values[0, 0] = np.nan
    save(data, file)
    status, out, err = _run(capsys, file)
    assert status == 1 and "1 points are not evaluated yet" in err and "beware" in out


def test_a_coarse_grid_is_doubted(capsys, tmp_path):
    loss = np.full((6, 6), 5.0)
    loss[np.diag_indices(6)] = [1, 2, 1.5, 2, 1, 0.5]
    save(plane(loss), tmp_path / "s.nc")
    assert "with 4 neighbours 6 minima stand out" in _run(capsys, tmp_path / "s.nc")[1]

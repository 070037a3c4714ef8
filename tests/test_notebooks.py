"""Every notebook runs from top to bottom, and what is committed reads well without running it."""

import re
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_runs import BYTES, cleaned, executed, faults, links, outline
from PIL import Image

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "01_any_checkpoint",
    "02_maml_vs_sharp_maml",
    "03_hessian_spectrum",
    "04_sharpness_measures",
    "05_trajectories_and_modes",
    "06_your_own_objective",
]
SECONDS = 180  # of one slow core, by its own clock: how busy the machine is does not count

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_there_are_six():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.timeout(600)  # by the wall clock of a machine that may be busy
@pytest.mark.filterwarnings("ignore")
@each
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    committed = outline(notebook)
    clock = new_code_cell("import time; print(time.process_time())")
    notebook.cells.append(clock)
    executed(notebook, tmp_path)
    notebook.cells.pop()
    assert not faults(notebook)
    assert outline(notebook) == committed, "run: python tests/notebook_runs.py notebooks/*.ipynb"
    assert float(clock.outputs[0].text) < SECONDS
    assert not list(tmp_path.iterdir()), "files left where the reader works"


@each
def test_what_is_committed_reads_well(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not faults(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size < BYTES
    assert cleaned(nbformat.read(path, as_version=4)) == notebook
    assert notebook.metadata.kernelspec.name == "python3"
    assert not re.search(r"/(home|root|tmp|work|Users)/", path.read_text(encoding="utf-8"))


@each
def test_links_lead_somewhere(path):
    missing = [to for to in links(nbformat.read(path, as_version=4)) if not (FOLDER / to).exists()]
    assert not missing


def test_the_readme_lists_all_of_them():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"]({name}.ipynb)" not in text] == []


def picture():
    return new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})


def fine():
    return new_notebook(
        cells=[
            new_markdown_cell("# Is it flat?\n\nText."),
            new_code_cell("f()", execution_count=1, outputs=[picture(), picture()]),
            new_markdown_cell("## Where next\n\n- [a](../docs/a.md#b)"),
        ]
    )


def test_a_good_notebook_has_no_faults():
    assert faults(fine()) == []
    assert links(fine()) == ["../docs/a.md"]


def warned(notebook):
    notebook.cells[1].outputs.append(new_output("stream", name="stderr", text="careful"))


def failed(notebook):
    notebook.cells[1].outputs.append(new_output("error", ename="E", evalue="", traceback=[]))


def shown_as_text(notebook):
    notebook.cells[1].outputs.append(new_output("execute_result", {"text/plain": "<Figure>"}))


def without_pictures(notebook):
    notebook.cells[1].outputs.pop()


def with_a_wall(notebook):
    notebook.cells[1].source = "f()\n" * 16


def without_a_question(notebook):
    notebook.cells[0].source = "# Flatness"


def without_an_end(notebook):
    notebook.cells[2].source = "## Where next\n\n## More"


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (warned, "stderr"),
        (failed, "error"),
        (shown_as_text, "text"),
        (without_pictures, "pictures"),
        (with_a_wall, "wall"),
        (without_a_question, "question"),
        (without_an_end, "next"),
    ],
)
def test_faults_are_seen(spoil, word):
    notebook = fine()
    spoil(notebook)
    assert len(faults(notebook)) == 1 and word in faults(notebook)[0]


def test_pictures_are_made_small_once():
    shades = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    full = BytesIO()
    Image.fromarray(shades).save(full, "PNG")
    notebook = fine()
    notebook.cells[1].outputs = [
        new_output("display_data", {"image/png": b64encode(full.getvalue()).decode()})
    ]
    once = cleaned(notebook).cells[1].outputs[0].data["image/png"]
    assert cleaned(notebook).cells[1].outputs[0].data["image/png"] == once
    image = Image.open(BytesIO(b64decode(once)))
    assert len(image.getcolors()) <= 256 and image.size == (40, 40)
    assert np.abs(np.asarray(image.convert("RGB")) - shades.astype(float)).mean() < 20


def test_text_in_pieces_becomes_one():
    notebook = fine()
    notebook.cells[1].outputs = [
        new_output("stream", name=name, text=text)
        for name, text in (("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d"))
    ]
    notebook.cells[1].metadata["execution"] = {"shell.execute_reply": "at noon"}
    told = cleaned(notebook).cells[1]
    assert [(o.name, o.text) for o in told.outputs] == [
        ("stdout", "ab"),
        ("stderr", "c"),
        ("stdout", "d"),
    ]
    assert told.metadata == {}

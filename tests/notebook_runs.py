"""Runs notebooks from top to bottom; as a program, writes their outputs into them.

python tests/notebook_runs.py notebooks/*.ipynb
"""

import os
import re
import sys
import tempfile
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

CELL_SECONDS = 280
"""What one cell may take by the clock, on a machine that is busy with other tests."""

CELL_LINES = 15
BYTES = 700_000

_LINK = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")


def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook with the outputs of a fresh kernel that works in ``folder``."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the kernel inherits it
    NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    ).execute()
    return notebook


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """As it is committed: nothing about this machine, text in one piece, small pictures."""
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = _small(output.data["image/png"])
    return notebook


def outline(notebook: NotebookNode) -> list[list[str]]:
    """What each cell of code gave: ``stdout``, ``image/png``, ..."""
    return [
        [kind for output in _joined(cell.outputs) for kind in _kinds(output)]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def faults(notebook: NotebookNode) -> list[str]:
    """What a reader would mind in the outputs and in the shape of a notebook."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code" and len(cell.source.splitlines()) > CELL_LINES:
            found.append(f"a wall of code: {cell.source.splitlines()[0]}")
    outputs = [kind for kinds in outline(notebook) for kind in kinds]
    found += [f"an output {bad}" for bad in ("stderr", "error") if bad in outputs]
    found += ["a figure that shows as text" for kind in outputs if kind == "text/plain"]
    if outputs.count("image/png") < 2:
        found.append("fewer than two pictures")
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    if not (first.startswith("# ") and first.splitlines()[0].endswith("?")):
        found.append("it does not begin with a question")
    if not last.split("## ")[-1].startswith("Where next"):
        found.append("it does not end with where to go next")
    return found


def links(notebook: NotebookNode) -> list[str]:
    """Files that the text links to, relative to the notebook."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [target for text in texts for target in _LINK.findall(text)]


def _small(picture: str) -> str:
    """A picture of 256 colours: a third of the size, and hardly a difference to the eye."""
    image = Image.open(BytesIO(b64decode(picture)))
    if image.mode == "P":
        return picture
    packed = BytesIO()
    # Colours by their range and not by their share: the background has most of the pixels.
    few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(packed, "PNG", optimize=True)
    return b64encode(packed.getvalue()).decode()


def _kinds(output: NotebookNode) -> list[str]:
    if output.output_type == "stream":
        return [output.name]
    if output.output_type == "error":
        return ["error"]
    return ["image/png"] if "image/png" in output.data else sorted(output.data)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in outputs:
        text = output.output_type == "stream"
        if text and joined and joined[-1].get("name") == output.name:
            output = nbformat.from_dict({**output, "text": joined.pop().text + output.text})
        joined.append(output)
    return joined


def main(paths: list[str]) -> None:
    """Run each file and write it back."""
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(nbformat.read(path, as_version=4), Path(folder))
        nbformat.write(cleaned(notebook), path)


if __name__ == "__main__":
    main(sys.argv[1:])

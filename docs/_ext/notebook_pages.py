"""The notebooks as pages, with the outputs that they were committed with; nothing is executed."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import nbformat

_MAGICS = ("%", "!")


def markdown(path: Path, pictures: Path) -> str:
    """A notebook as Markdown; its PNG outputs are written to ``pictures``, beside the page."""
    notebook = nbformat.read(path, as_version=4)
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # A notebook and its page are both one folder away from the other documents.
            text = cell.source.replace("](../docs/", "](../")
            parts.append(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text))
        elif cell.cell_type == "code" and cell.source.strip():
            code = [line for line in cell.source.splitlines() if not line.startswith(_MAGICS)]
            parts.append(_fenced("\n".join(code), "python"))
            printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
            if printed:
                parts.append(_fenced(printed.rstrip(), "text"))
            for output in cell.outputs:
                parts += _shown(output, pictures / f"{path.stem}-{len(parts)}.png")
    source = f"*The notebook: {{download}}`{path.name} <../../notebooks/{path.name}>`*"
    parts.insert(1, source)
    return "\n\n".join(parts) + "\n"


def _shown(output: Any, picture: Path) -> list[str]:
    data = output.get("data", {})
    if "image/png" in data:
        picture.write_bytes(base64.b64decode(data["image/png"]))
        return [f"![]({picture.name})"]
    if "text/plain" in data:
        return [_fenced(data["text/plain"], "text")]
    return []


def _fenced(text: str, language: str) -> str:
    return f"````{language}\n{text}\n````"


def _write(app: Any) -> None:
    source = Path(app.srcdir)
    pages = source / "_notebooks"
    pages.mkdir(exist_ok=True)
    for stale in pages.iterdir():
        stale.unlink()
    for path in sorted((source.parent / "notebooks").glob("*.ipynb")):
        (pages / f"{path.stem}.md").write_text(markdown(path, pages), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True}

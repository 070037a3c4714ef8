"""The documents are true: links lead somewhere, code runs, commands and names exist."""

import ast
import importlib
import inspect
import json
import re
import runpy
import sys
from urllib.parse import unquote

import matplotlib.figure
import nbformat
import plotly.graph_objects as go
import pytest
import torch
from cyclopts import MissingArgumentError
from documents import ROOT, anchors, code, commands, documents, links, name

import landscape
import landscape.cli
import sharpmaml
import sharpmaml.cli

DOCUMENTS = documents()
APPS = {"landscape": landscape.cli.app, "sharpmaml": sharpmaml.cli.app}
GALLERY = sorted((ROOT / "docs" / "gallery").glob("plot_*.py"))
RUN = ("README.md", "docs/index.md", "docs/curvature.md")
OURS = re.compile(r"(?:landscape|sharpmaml)(?:\.\w+)+")
OTHERS = {"--dir_file", "--dir_type", "--nproc-per-node", "--xignore", "--xnorm"}  # other programs
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name)


def resolve(dotted):
    """The object behind ``landscape.a.b``, importing modules on the way."""
    found, so_far = None, ""
    for part in dotted.split("."):
        so_far = f"{so_far}.{part}" if so_far else part
        try:
            found = importlib.import_module(so_far) if found is None else getattr(found, part)
        except AttributeError:
            found = importlib.import_module(so_far)
    return found


def dotted(node):
    """``landscape.a.b`` of an expression, or None where it is something else."""
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return left and f"{left}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


@every_document
def test_links_lead_somewhere(path):
    for target in links(path):
        if re.match(r"\w+:", target):
            continue
        place, _, anchor = unquote(target).partition("#")
        file = (path.parent / place) if place else path
        assert file.exists(), f"{name(path)}: {target}"
        assert not anchor or anchor in set(anchors(file)), f"{name(path)}: {target}"


@every_document
def test_commands_are_accepted(path):
    """Parsed as the command would, with its types; a command named in passing may lack arguments."""
    for piece in code(path):
        for program, *words in commands(piece.text):
            try:
                APPS[program].parse_args(words, print_error=False, exit_on_error=False)
            except MissingArgumentError:
                assert piece.language is None, f"{name(path)}: {program} {' '.join(words)}"
            except Exception as error:  # the parser has many kinds, all mean a command that is not
                raise AssertionError(f"{name(path)}: {program} {' '.join(words)}") from error


@pytest.fixture(scope="module")
def flags():
    found = {"--help", "--version"}
    for script in (ROOT / "benchmarks").glob("*.py"):
        found |= set(re.findall(r"\"(--[\w-]+)\"", script.read_text(encoding="utf-8")))
    for app in APPS.values():
        for word in (w for w in app if not w.startswith("-")):
            for argument in app[word].assemble_argument_collection():
                found |= {n for n in argument.names if n.startswith("--")}
    return found


@every_document
def test_flags_exist(path, flags):
    for piece in code(path):
        if piece.language is not None:
            continue
        for flag in re.findall(r"(?<!\S)--[a-z][\w.-]*", piece.text):
            known = {flag, flag.partition(".")[0]} & (flags | OTHERS)
            assert known, f"{name(path)}: no command has {flag} ({piece.text})"


@every_document
def test_names_exist(path):
    """Every name of ours in code; calls also take the keywords that they are given."""
    for piece in code(path):
        if piece.language is None and (match := OURS.fullmatch(piece.text.partition("(")[0])):
            resolve(match[0])
        if piece.language != "python":
            continue
        nodes = list(ast.walk(ast.parse(piece.text)))
        known = {package: package for package in APPS}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in APPS:
                known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        for node in nodes:
            written = dotted(node.func if isinstance(node, ast.Call) else node) or ""
            first, dot, rest = written.partition(".")
            if first not in known:
                continue
            full = known[first] + dot + rest
            found = resolve(full)
            if isinstance(node, ast.Call) and callable(found) and not inspect.ismodule(found):
                inspect.signature(found).bind(*node.args, **{k.arg: k.value for k in node.keywords})


@pytest.mark.parametrize("document", RUN)
def test_first_block_runs(document, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda figure: None)
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    given = {"landscape": landscape, "x": x, "y": (x[:, 0] > 0).long()}
    given["model"] = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)
    )
    given["objective"] = landscape.DataObjective(given["model"], (x, given["y"]))
    text = next(piece.text for piece in code(ROOT / document) if piece.language == "python")
    exec(compile(text, document, "exec"), given)
    if "print(" in text:
        assert "lambda_max" in capsys.readouterr().out


@pytest.mark.parametrize("script", GALLERY, ids=lambda path: path.stem)
def test_gallery_script_draws(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(script.parent)
    made = runpy.run_path(str(script))
    figures = [v for v in made.values() if isinstance(v, matplotlib.figure.Figure)]
    assert figures, "a page of the gallery needs a picture for its thumbnail"
    for figure in figures:
        figure.savefig(tmp_path / "figure.pdf")


def test_gallery_scripts_are_short():
    for script in GALLERY:
        code_lines = [
            line
            for line in script.read_text(encoding="utf-8").split('"""', 2)[2].splitlines()
            if line.strip() and not line.startswith("#")
        ]
        assert len(code_lines) <= 30, f"{script.name}: {len(code_lines)} lines"


def test_reference_has_every_public_name():
    pages = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs/reference").glob("*.md"))
    for package in (landscape, sharpmaml):
        for public in package.__all__:
            pattern = rf"::\s+(?:{package.__name__}\.)?(?:\w+\.)*{public}\s"
            assert re.search(pattern, pages), f"docs/reference lacks {package.__name__}.{public}"
    for measure in landscape.sharpness.MEASURES.values():
        full = f"{measure.__module__}.{measure.__qualname__}"
        if measure.__module__.startswith("landscape."):
            assert f":: {full}\n" in pages, f"docs/reference/measures.md lacks {full}"


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    yield importlib.import_module
    for module in ("docstrings", "gallery_figures", "notebook_pages"):
        sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("written", "markup"),
    [
        ("the largest |λ| of θ*", r"the largest \|λ\| of θ\*"),
        ("``|w|`` and `a*b`", "``|w|`` and `a*b`"),
        ("*flatter* or *cannot tell*", "*flatter* or *cannot tell*"),
        (r"already \*escaped\|", r"already \*escaped\|"),
    ],
)
def test_mathematics_in_docstrings_is_no_markup(written, markup, extension):
    assert extension("docstrings").escaped(written) == markup


def test_interactive_figure_is_data_and_a_note(extension):
    figure = go.Figure(go.Scatter(y=[1.0, 2.0], name="</script><b>"))
    figure.update_layout(title={"text": "Loss", "subtitle": {"text": "seed 0"}}, height=321)
    lines = extension("gallery_figures").interactive(figure).splitlines()
    assert lines[:2] == [".. raw:: html", ""]
    html = "\n".join(lines[2:])
    assert html.count("</script>") == 1
    assert "height:321px" in html and "<p>seed 0</p>" in html
    drawing = json.loads(re.search(r"json'>(.*)</script>", html)[1])
    assert drawing["data"][0]["name"] == "</script><b>"
    assert drawing["layout"]["title"]["text"] == "Loss"
    assert not drawing["layout"]["title"]["subtitle"]["text"]
    assert figure.layout.title.subtitle.text == "seed 0"


def test_notebook_becomes_a_page(tmp_path, extension):
    picture = "iVBORw0KGgo="
    cell = nbformat.v4.new_code_cell(
        "%matplotlib inline\n1 + 1",
        outputs=[
            nbformat.v4.new_output("stream", text="one\n"),
            nbformat.v4.new_output("stream", text="two\n"),
            nbformat.v4.new_output("display_data", {"image/png": picture, "text/plain": "Figure"}),
            nbformat.v4.new_output("execute_result", {"text/plain": "2"}),
        ],
    )
    cells = [
        nbformat.v4.new_markdown_cell("# Why? [here](../docs/choose.md), [next](02_b.ipynb)"),
        cell,
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "note.ipynb")
    page = extension("notebook_pages").markdown(tmp_path / "note.ipynb", tmp_path)
    (png,) = tmp_path.glob("*.png")
    assert png.read_bytes() == b"\x89PNG\r\n\x1a\n"
    parts = page.split("\n\n")
    assert parts[0] == "# Why? [here](../choose.md), [next](02_b.md)"
    assert "note.ipynb" in parts[1]
    assert parts[2:] == [
        "````python\n1 + 1\n````", "````text\none\ntwo\n````", f"![]({png.name})",
        "````text\n2\n````\n",
    ]  # fmt: skip

import math
import sys

import pytest

from landscape.resolve import resolve, said


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch, tmp_path):
    """The process as it was: import path, modules and folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(name):
    with pytest.raises(ValueError) as caught:
        resolve(name, "--model")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--model")
    return str(caught.value)


def test_an_installed_module():
    assert resolve("math:sqrt", "--model") is math.sqrt
    assert resolve("os.path:join", "--model")("a", "b")


def test_a_module_in_the_current_folder(tmp_path):
    write(tmp_path / "own_package_a" / "nets.py", "def make():\n    return 'made'\n")
    assert resolve("own_package_a.nets:make", "--model")() == "made"


def test_a_file_with_its_neighbours_and_dataclasses(tmp_path):
    write(tmp_path / "lib" / "own_blocks_b.py", "SIZE = 7\n")
    text = """from __future__ import annotations
from dataclasses import dataclass
from own_blocks_b import SIZE

@dataclass
class Net:
    size: int = SIZE
"""
    path = write(tmp_path / "lib" / "torch.py", text)  # the name of an installed package
    import torch

    assert resolve(f"{path}:Net", "--model")().size == 7
    assert resolve("lib/torch.py:Net", "--model")().size == 7
    assert sys.modules["torch"] is torch


def test_two_files_of_one_name(tmp_path):
    for value in (1, 2):
        write(tmp_path / str(value) / "net.py", f"VALUE = {value}\n")
    assert [resolve(f"{v}/net.py:VALUE", "--model") for v in (1, 2)] == [1, 2]


@pytest.mark.parametrize("name", ["net", "net.py", ":make", "net.py:", ""])
def test_wrong_forms(name):
    assert "expected package.module:factory or file.py:factory" in refusal(name)


def test_what_is_not_there(tmp_path):
    write(tmp_path / "net.py", "x = 1\n")
    assert "none.py does not exist" in refusal("none.py:make")
    assert "no attribute 'make'" in refusal("net.py:make")
    assert "no_such_module_c" in refusal("no_such_module_c:make")
    assert "no attribute 'nothing'" in refusal("math:nothing")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: division by zero (net.py, line 2)"),
        ("def (:\n", "SyntaxError"),
        ("import no_such_module_d\n", "No module named 'no_such_module_d' (net.py, line 1)"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines (net.py, line 1)"),
    ],
)
def test_code_of_the_user_that_fails(tmp_path, code, expected):
    write(tmp_path / "net.py", code)
    assert expected in refusal("net.py:make")


def test_errors_name_the_line_of_the_user_and_not_of_a_library(tmp_path):
    write(tmp_path / "net.py", "import json\n\ndef make():\n    return json.loads('{')\n")
    make = resolve("net.py:make", "--model")
    with pytest.raises(ValueError) as caught:
        make()
    assert said(caught.value).startswith("JSONDecodeError: ")
    assert said(caught.value).endswith("(net.py, line 4)")
    assert said(ValueError()) == "ValueError"

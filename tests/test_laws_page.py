"""The page of laws: every test that it names is there, and every test of a law is named."""

import pytest
from named_laws import PAGE, TESTS, functions_in, laws


@pytest.mark.parametrize("law", laws(), ids=lambda law: law.node)
def test_a_law_has_its_test(law):
    found = functions_in(TESTS / law.file)
    assert law.test in found
    assert found[law.test] != law.cases, "(cases) stands where, and only where, no cases are drawn"


def test_no_law_is_named_twice_and_none_is_left_out():
    named = [law.node for law in laws()]
    assert len(set(named)) == len(named) and len({law.text for law in laws()}) == len(named)
    files = [*TESTS.glob("landscape/test_laws_*.py"), *TESTS.glob("sharpmaml/test_laws_*.py")]
    drawn = {
        f"{file.relative_to(TESTS).as_posix()}::{name}"
        for file in files
        for name, draws in functions_in(file).items()
        if draws
    }
    assert drawn and drawn <= set(named)


@pytest.mark.parametrize(
    "row", ["| a law | a source | |", "| a law | | `a.py::test_b` |", "| a law | `a.py::test_b` |"]
)
def test_a_law_without_a_test_or_a_source_is_found(tmp_path, row):
    page = tmp_path / "laws.md"
    page.write_text(PAGE.read_text() + row + "\n")
    with pytest.raises(ValueError, match=r"not a law, a source and a test"):
        laws(page)

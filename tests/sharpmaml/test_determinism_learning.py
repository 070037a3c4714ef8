"""Training, evaluation and meta surfaces: the same bits again, in small groups and resumed; see test_determinism."""

from __future__ import annotations

import pytest
from determinism import learning
from determinism.lab import CONDITIONS, SUBJECTS, Conditions, verdict

from landscape.parallel import Team
from sharpmaml.config import METHODS

__all__ = ["learning"]

NAMES = (
    *(f"training: {method}, images" for method in ("sharp-both", "maml++", "imaml", "reptile")),
    *(f"training: sharp-both, sinusoids, {name}" for name in ("loop", "vmap", "adjoint")),
    "evaluation, images", "meta surface: stacked", "meta surface: vmap",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_bits_are_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    subject, found = SUBJECTS[name], {}
    for condition in ("base", "few at a time", "resumed"):
        if condition not in ("base", *subject.exact):
            continue
        given = CONDITIONS.get(condition, Conditions())
        (tmp_path / condition).mkdir()
        with monkeypatch.context() as patch:
            if given.few:
                patch.setattr("landscape.surface._MAX_ROUND", 2)
                patch.setattr("sharpmaml.evaluators._ACTIVATIONS", 40_000)
                patch.setattr("sharpmaml.evaluating.scorer._ACTIVATIONS", 40_000)
            found[condition] = subject.work(given, Team(), tmp_path / condition)
        assert verdict(subject, condition, found["base"], found[condition]) == ("same bits", True)


def test_every_method_is_among_the_subjects():
    assert all(f"training: {method}, images" in SUBJECTS for method in METHODS)

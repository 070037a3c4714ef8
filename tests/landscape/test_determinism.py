"""The same seed gives the same bits: again, in small groups, resumed, and on ranks where that is promised.

Everything there is, under all conditions, is in benchmarks/faults_determinism.py; here is what tells most for its time.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from determinism import functions, learning
from determinism.lab import (
    CONDITIONS,
    RANKS,
    SUBJECTS,
    Conditions,
    Subject,
    compute,
    difference,
    verdict,
)

from landscape.clock import created_at
from landscape.device import one_thread
from landscape.parallel import Team

__all__ = ["functions", "learning"]

HERE = (
    "surface: mlp, fused", "surface: convnet, vmap", "surface: refined, repeatable", "Hessian: products",
    "curvature map", "curvature along training", "trajectory, with measures", "curve between two points",
    "planes: random, principal", "bytes of files and pages",
)  # fmt: skip
ELSEWHERE = ("surface: convnet, plain", "Hessian: GGN", "bytes of files and pages")


def here(name: str, given: Conditions, folder) -> dict:
    """Numbers of a subject, computed in this process."""
    folder.mkdir()
    before = torch.get_num_threads()
    torch.set_num_threads(given.threads)
    try:
        return SUBJECTS[name].work(given, Team(), folder)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", HERE)
def test_the_bits_are_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    subject = SUBJECTS[name]
    base = here(name, Conditions(), tmp_path / "base")
    for condition in ("again", "few at a time", "resumed", "2 threads"):
        if condition not in ("again", *subject.exact):
            continue
        given = CONDITIONS[condition]
        with monkeypatch.context() as patch:
            if given.few:
                patch.setattr("landscape.surface._MAX_ROUND", 2)
                patch.setattr("landscape.executors.loop._MAX_BLOCK", 2)
            other = here(name, given, tmp_path / condition)
        assert verdict(subject, condition, base, other) == ("same bits", True), condition


def test_other_processes_and_ranks_come_to_them_too(tmp_path):
    base = compute(tmp_path / "base", Conditions(), ELSEWHERE)
    ranks = compute(tmp_path / "ranks", Conditions(ranks=2), ELSEWHERE[:2])
    for name, found in ranks.items():
        text, good = verdict(SUBJECTS[name], RANKS[0], base[name], found)
        assert good, (name, text)
    assert (
        verdict(SUBJECTS[ELSEWHERE[0]], RANKS[0], base[ELSEWHERE[0]], ranks[ELSEWHERE[0]])[0]
        == "same bits"
    )
    # This process is another one.
    kept = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = "1700000000"
    try:
        for name in ELSEWHERE:
            mine = here(name, Conditions(), tmp_path / f"mine-{len(name)}")
            assert difference(base[name], mine)[0] == 0, name
    finally:
        os.environ.pop("SOURCE_DATE_EPOCH")
        if kept is not None:
            os.environ["SOURCE_DATE_EPOCH"] = kept


def test_a_difference_is_seen():
    one = {"a": np.array([1.0, 2.0]), "b": "words", "c": 3}
    assert difference(one, {**one, "a": one["a"].copy()}) == (0.0, "")
    nearly = {**one, "a": np.array([1.0, np.nextafter(2.0, 3.0)])}
    assert 0 < difference(one, nearly)[0] < 1e-15 and difference(one, nearly)[1] == "a"
    assert difference(one, nearly, ("b", "c"))[0] == 0
    for name, value in (
        ("b", "other"),
        ("c", 4),
        ("a", np.array([1.0, np.nan])),
        ("a", np.zeros(3)),
    ):
        assert difference(one, {**one, name: value}) == (np.inf, name)
    assert difference(one, {"a": one["a"], "b": "words"}) == (np.inf, "c")
    assert difference({"a": np.array([0.0])}, {"a": np.array([-0.0])})[0] > 0  # other bits
    exact = Subject(lambda *_: {}, ("resumed",), ("2 ranks",), ("a",))
    assert verdict(exact, "resumed", one, nearly)[1] is False
    assert verdict(exact, "2 ranks", one, nearly) == ("2e-16", True)
    assert verdict(exact, "2 ranks", one, {**one, "a": np.array([1.0, 2.1])})[1] is False
    assert verdict(exact, "again", one, {"error": "ValueError: no"}) == ("ValueError: no", False)


def test_one_thread_and_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(KeyError), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_time_in_files_can_be_set(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert created_at() == "1970-01-01T00:00:00+00:00"
    for text in ("", "-1", "soon", "1.5"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        assert created_at() > "2024"

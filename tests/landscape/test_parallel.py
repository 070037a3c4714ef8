import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import conv_objective

from landscape.directions import random_plane
from landscape.parallel import Team, join, local_device
from landscape.store import load
from landscape.surface import evaluate

RANK = """
import sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from problems import conv_objective
from landscape.directions import random_plane
from landscape.parallel import join, leave
from landscape.surface import evaluate

objective = conv_objective(torch.float32)
plane = random_plane(objective)
team = join()
for tolerance, name in ((None, "grid"), (0.05, "refined")):
    surface = evaluate(
        objective, plane, points=7, executor="fused", tolerance=tolerance, team=team,
        out={folder!r} + "/" + name + ".nc",
    )
    assert surface["loss"].notnull().all()
leave()
"""


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
def test_a_round_dealt_out_and_gathered_is_the_round(points, size):
    dealt = [Team(rank, size).mine(points) for rank in range(size)]
    merged = [dealt[i % size][i // size] for i in range(len(points))]
    assert merged == points


def test_alone_there_is_nothing_to_join(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = join()
    assert (team.size, team.leads, team.agree("x")) == (1, True, "x")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [local_device(name) for name in ("auto", "cpu")] == ["cuda:1", "cpu"]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_of_torchrun_give_the_bits_of_one_process(tmp_path, ranks):
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    (tmp_path / "rank.py").write_text(RANK.format(tests=tests, folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [*command, str(ranks), str(tmp_path / "rank.py")],
        check=True, env=environment, timeout=200, capture_output=True,
    )  # fmt: skip
    objective = conv_objective(torch.float32)
    plane = random_plane(objective)
    for tolerance, name in ((None, "grid"), (0.05, "refined")):
        alone = evaluate(objective, plane, points=7, executor="fused", tolerance=tolerance)
        together = load(tmp_path / f"{name}.nc")
        assert together.drop_attrs().identical(alone.drop_attrs())
        assert np.isfinite(together["loss"].values).all()

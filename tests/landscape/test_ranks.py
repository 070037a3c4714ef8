"""Products shared by the ranks of torchrun are those of one process, with one exchange each."""

import json
import os
import subprocess
import sys

import pytest
import torch
from problems import conv_objective

from landscape.operators.hessian import HessianOperator
from landscape.spectra.eigenpairs import eigenpairs

RANK = """
import json, sys
sys.path.insert(0, {tests!r})
import torch
import torch.distributed as dist
torch.set_num_threads(1)
from problems import conv_objective
from landscape.operators.hessian import HessianOperator
from landscape.parallel import join, leave
from landscape.spectra.eigenpairs import eigenpairs

exchanges = 0
reduce = dist.all_reduce
def counted(*words, **more):
    global exchanges
    exchanges += 1
    return reduce(*words, **more)
dist.all_reduce = counted

objective = conv_objective(batch_size=8)
team = join()
operator = HessianOperator(objective, team=team)
vectors = torch.linspace(-1, 1, 2 * operator.shape[0], dtype=torch.float64).view(2, -1)
images = operator.rows(vectors)
after_products = exchanges
quotients = operator.quotients(vectors)
operator = HessianOperator(objective, team=team, keep_graph={keep})
before = exchanges
pairs = eigenpairs(operator, 3, spread=True, tol=1e-9)
record = dict(
    images=images.tolist(), products_exchanged=after_products, quotients=quotients.tolist(),
    values=pairs.values.tolist(), products=pairs.products, exchanged=exchanges - before,
    spread=pairs.quotients.tolist(), own=len(operator._mine), vector=pairs.vectors[0].tolist(),
)
with open({folder!r} + "/" + str(team.rank) + ".json", "w") as file:
    json.dump(record, file)
leave()
"""


@pytest.mark.parametrize(("ranks", "keep"), [(2, True), (3, False)])
def test_ranks_share_the_parts_and_exchange_once_a_product(tmp_path, ranks, keep):
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    script = tmp_path / "rank.py"
    script.write_text(RANK.format(tests=tests, folder=str(tmp_path), keep=keep))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    subprocess.run(
        [*command, str(ranks), str(script)],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200, capture_output=True,
    )  # fmt: skip
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)]

    objective = conv_objective(batch_size=8)
    operator = HessianOperator(objective)
    assert operator.parts == 4
    vectors = torch.linspace(-1, 1, 2 * operator.shape[0], dtype=torch.float64).view(2, -1)
    images, quotients = operator.rows(vectors), operator.quotients(vectors)
    pairs = eigenpairs(objective, 3, spread=True, tol=1e-9)
    assert sum(record["own"] for record in told) == 4
    for record in told:
        assert {k: v for k, v in record.items() if k != "own"} == {
            k: v for k, v in told[0].items() if k != "own"
        }  # every rank holds the same bits
        assert record["products_exchanged"] == 1  # for both vectors together
        torch.testing.assert_close(
            torch.tensor(record["images"], dtype=torch.float64), images, rtol=1e-12, atol=1e-14
        )
        found = torch.tensor(record["quotients"], dtype=torch.float64)
        torch.testing.assert_close(found, quotients, rtol=1e-12, atol=1e-14)
        found = torch.tensor(record["values"], dtype=torch.float64)
        torch.testing.assert_close(found, pairs.values, rtol=1e-10, atol=1e-12)
        found = torch.tensor(record["spread"], dtype=torch.float64)
        torch.testing.assert_close(found, pairs.quotients, rtol=1e-9, atol=1e-12)
        assert abs(record["products"] - pairs.products) <= 2  # rounding may move the last step
        # Beside one a product: whether all know a start, that start, and the quotients of all parts.
        assert record["exchanged"] <= record["products"] + 3

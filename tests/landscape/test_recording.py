"""Products that are kept, and given back to the same computation."""

import dataclasses

import pytest
import torch

import landscape
from landscape.curvature_report import Asked, measure
from landscape.data_objective import DataObjective
from landscape.holding import HeldError
from landscape.journal import Journal
from landscape.operators.recording import recording


def objective(seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).to(
        dtype
    )
    x, y = torch.randn(23, 3, dtype=dtype), torch.arange(23) % 2
    return DataObjective(net, [(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)])


ASKED = Asked(k=3, trace=True, density=True, layers=True, held_out=True)


class Cut(BaseException):
    """As hard an end as Python has."""


def curvature(path, *, cut=None, made=None, **options):
    """The whole report, broken off at the ``cut``-th product that is really computed."""
    function = objective()
    count = 0
    with recording(path, function) as record:
        keep = record.keep

        def counted(vectors, products, cost):
            nonlocal count
            if cut is not None and count == cut:
                raise Cut
            count += 1
            keep(vectors, products, cost)

        record.keep = counted
        try:
            asked = dataclasses.replace(ASKED, options={"record": record, **options})
            return measure(function, asked).document()
        finally:
            if made is not None:
                made.append(count)


@pytest.mark.parametrize(("keep_graph", "cuts"), [(True, (0, 7, 3, 11)), (False, (2,))])
def test_cut_off_anywhere_it_goes_on_to_the_same_bits(tmp_path, keep_graph, cuts):
    whole = [0]
    expected = measure(objective(), dataclasses.replace(ASKED, options={"keep_graph": keep_graph}))
    recorded = curvature(tmp_path / "all", made=whole, keep_graph=keep_graph)
    assert recorded == expected.document()
    total, path, made = whole[-1], tmp_path / "p", []
    assert total > 20
    for cut in cuts:
        with pytest.raises(Cut):
            curvature(path, cut=cut, made=made, keep_graph=keep_graph)
        assert path.exists()
    found = curvature(path, made=made, keep_graph=keep_graph)
    assert found == recorded
    assert made == [*cuts, total - sum(cuts)]  # nothing was computed twice
    assert not path.exists()


def test_products_of_another_start_are_not_given_back(tmp_path):
    function = objective()
    plain = [landscape.eigenpairs(function, k=2, seed=seed).values for seed in (0, 1)]
    with pytest.raises(Cut), recording(tmp_path / "p", function) as record:
        landscape.eigenpairs(function, k=2, seed=0, record=record)
        raise Cut
    kept = len(Journal(tmp_path / "p", _title(tmp_path / "p")))
    with pytest.raises(Cut), recording(tmp_path / "p", function) as record:
        assert record.found == kept - 1 > 4
        found = landscape.eigenpairs(function, k=2, seed=1, record=record)
        assert torch.equal(found.values, plain[1])
        raise Cut
    with recording(tmp_path / "p", function) as record:
        assert torch.equal(
            landscape.eigenpairs(function, k=2, seed=1, record=record).values, plain[1]
        )


def _title(path):
    import json
    import struct

    data = path.read_bytes()
    begin = len(b"landscape.journal/1\n")
    words, _, _ = struct.unpack_from("<IQI", data, begin)
    return json.loads(data[begin + 16 : begin + 16 + words])[0]


def test_what_is_watched_is_computed(tmp_path):
    function = objective()
    expected = landscape.operator_of(function).quotients(torch.eye(32).double()[:2])
    vector = torch.eye(32, dtype=torch.float64)[:2]
    for _ in range(2):
        with pytest.raises(Cut), recording(tmp_path / "p", function) as record:
            operator = landscape.operator_of(function, record=record)
            assert torch.equal(operator.quotients(vector), expected)
            raise Cut


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_dtype_comes_back_to_the_bit(tmp_path, dtype):
    function = objective(dtype=dtype)
    vectors = torch.ones(2, 32, dtype=dtype)
    found = []
    for _ in range(2):
        with pytest.raises(Cut), recording(tmp_path / "p", function) as record:
            operator = landscape.operator_of(function, record=record, check=False)
            found.append(operator.rows(vectors))
            raise Cut
    assert found[0].dtype == found[1].dtype == dtype
    assert torch.equal(*found)


def test_files_of_other_computations_are_refused(tmp_path):
    path = tmp_path / "p"
    with pytest.raises(Cut), recording(path, objective()) as record:
        landscape.operator_of(objective(), record=record)
        raise Cut
    before = path.read_bytes()
    with (
        pytest.raises(
            ValueError, match="something else than products of this objective at this point"
        ),
        recording(path, objective(seed=1)),
    ):
        pass
    (tmp_path / "text").write_text("mine")
    with (
        pytest.raises(ValueError, match="give another name"),
        recording(tmp_path / "text", objective()),
    ):
        pass
    assert path.read_bytes() == before
    assert (tmp_path / "text").read_text() == "mine"


def test_another_function_of_the_same_settings_is_refused(tmp_path):
    at = torch.ones(2).double()
    with (
        pytest.raises(Cut),
        recording(tmp_path / "p", landscape.FunctionObjective(lambda t: (t * t).sum(), at)),
    ):
        raise Cut
    other = landscape.FunctionObjective(lambda t: (3 * t * t).sum(), at)
    with (
        pytest.raises(ValueError, match="its loss is 2.0 there and 6.0 here"),
        recording(tmp_path / "p", other),
    ):
        pass


def test_two_at_once(tmp_path):
    with (
        recording(tmp_path / "p", objective()),
        pytest.raises(HeldError, match="being written by process"),
        recording(tmp_path / "p", objective()),
    ):
        pass


def test_an_operator_that_was_given_has_its_own():
    matrix = landscape.operator_of(objective())
    with pytest.raises(ValueError, match="leave out theta, kind, record"):
        landscape.operator_of(matrix, record=object())

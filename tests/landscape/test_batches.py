from collections import UserDict, namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from landscape.batches import Batch, map_tensors, materialize, recut, tensors_in

X = torch.arange(10.0).reshape(5, 2)
Y = torch.arange(5)
LIKE = torch.zeros(0)


def read(data, batch_size=None, whole=False, like=LIKE):
    return materialize(data, batch_size, whole, like)


def test_a_pair_is_cut():
    assert [b.size for b in read((X, Y), 2)] == [2, 2, 1]
    assert [b.size for b in read((X, Y))] == [5]
    many = (torch.zeros(600, 1), torch.zeros(600))
    assert [b.size for b in read(many)] == [256, 256, 88]
    assert [b.size for b in read(many, whole=True)] == [600]
    assert [b.size for b in read(many, 500, whole=True)] == [500, 100]
    (batch,) = read((X, Y))
    assert torch.equal(batch.args[0], X) and batch.kwargs == {} and torch.equal(batch.target, Y)


@pytest.mark.parametrize(
    ("item", "args", "kwargs"),
    [
        ((X, Y), 1, set()),
        ([X, Y], 1, set()),
        ((X, X, X, Y), 3, set()),
        (((X, X), Y), 2, set()),
        (({"a": X, "b": X}, Y), 0, {"a", "b"}),
        ({"a": X, "labels": Y}, 0, {"a"}),
        ({"a": X, "target": Y, "y": X}, 0, {"a", "y"}),
        ({"y": X, "labels": Y}, 0, {"y"}),
        (UserDict(a=X, y=Y), 0, {"a"}),
    ],
)
def test_forms_of_a_batch(item, args, kwargs):
    (batch,) = read([item])
    assert (len(batch.args), set(batch.kwargs), batch.size) == (args, kwargs, 5)
    assert torch.equal(batch.target, Y)
    assert all(torch.equal(t, X) for t in (*batch.args, *batch.kwargs.values()))


def test_one_mapping_holds_all_examples():
    batches = read({"a": X, "mask": None, "scale": torch.tensor(2.0), "labels": {"b": Y}}, 2)
    assert [b.size for b in batches] == [2, 2, 1]
    assert batches[2].kwargs["a"].tolist() == [[8, 9]] and batches[2].kwargs["mask"] is None
    assert batches[1].kwargs["scale"] == 2 and batches[1].target["b"].tolist() == [2, 3]


def test_a_mapping_without_a_target():
    (batch,) = read({"a": X})
    assert batch.target is None and batch.size == 5


def test_loaders_and_generators_are_read_once():
    loader = DataLoader(TensorDataset(X, Y), batch_size=2)
    assert [b.size for b in read(loader)] == [2, 2, 1]
    assert [b.size for b in read((x, y) for x, y in [(X, Y), (X[:0], Y[:0])])] == [5]
    # A pair of batches is an iterable of batches, not a pair of tensors.
    assert [b.size for b in read(((X, Y), (X[:2], Y[:2])))] == [5, 2]


def test_inputs_take_the_dtype_and_integers_keep_theirs():
    (batch,) = read([((X, Y), Y)], like=torch.zeros(0, dtype=torch.float64))
    assert [t.dtype for t in batch.tensors()] == [torch.float64, torch.int64, torch.int64]


def test_the_tensors_kept_are_copies():
    x = X.clone().requires_grad_()
    (batch,) = read((x, Y))
    assert not batch.args[0].requires_grad
    assert batch.args[0].data_ptr() != x.data_ptr()
    assert batch.target.data_ptr() != Y.data_ptr()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data hold no example: pass"),
        ((X[:0], Y[:0]), "the data hold no example: pass"),
        ([X], "a batch is a Tensor, expected"),
        ([(X,)], "a batch is a tuple, expected"),
        ((X, Y[:4]), r"a batch has 4 targets for inputs of \[5\] examples"),
        ([(X, X[:3], Y[:4])], r"a batch has 4 targets for inputs of \[3, 5\] examples"),
    ],
)
def test_other_data_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read(data)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12))
def test_pieces_together_are_the_whole(size, piece):
    whole = Batch(
        (X.new_ones(size, 2).cumsum(0),), {"k": torch.arange(size)}, [torch.ones(size)], size
    )
    pieces = whole.split(piece)
    assert sum(p.size for p in pieces) == size and max(p.size for p in pieces) <= piece
    for i, tensor in enumerate(whole.tensors()):
        assert torch.equal(torch.cat([list(p.tensors())[i] for p in pieces]), tensor)


def test_nestings_keep_their_kind():
    Pair = namedtuple("Pair", ["a", "b"])
    tree = {"p": Pair(X, 3), "l": [Y, "word"], "t": (X,)}
    found = map_tensors(lambda t: t + 1, tree)
    assert isinstance(found["p"], Pair) and isinstance(found["l"], list)
    assert found["p"].b == 3 and found["l"][1] == "word"
    assert torch.equal(found["p"].a, X + 1) and torch.equal(found["t"][0], X + 1)
    assert [t is s for t, s in zip(tensors_in(tree), (X, Y, X), strict=True)] == [True] * 3


def test_a_whole_is_cut_anew_and_a_callers_batches_are_not_joined():
    x = torch.arange(10.0)[:, None]
    pieces = materialize((x, x), 4, False, torch.zeros(0))
    assert [b.size for b in recut(pieces, 6)] == [6, 4]
    again = recut(pieces, 6)[0].args[0]
    assert torch.equal(again, x[:6])
    assert again.data_ptr() == pieces[0].args[0].data_ptr()  # views: nothing is copied
    assert [b.size for b in recut(pieces[1:], 3)] == [3, 1, 2]
    own = materialize([(x[:4], x[:4]), (x[4:], x[4:])], None, False, torch.zeros(0))
    assert [b.size for b in recut(own, 5)] == [4, 5, 1]

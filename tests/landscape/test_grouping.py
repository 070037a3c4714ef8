import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import normal, seeded
from torch import nn

from landscape.directions import generator, random_plane
from landscape.grouping import RULES, TABLE, Grouping, whole
from landscape.normalization import normalized
from landscape.objective import FunctionObjective
from landscape.space import ParameterSpace, table


class Conv1D(nn.Module):
    """As in GPT-2: a linear layer whose weight is (inputs, outputs)."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))


class Host(nn.Module):
    """Any parent: children, parameters and plain attributes by name."""

    def __init__(self, **members):
        super().__init__()
        for name, member in members.items():
            setattr(self, name, nn.Parameter(member) if torch.is_tensor(member) else member)


def blocks(axis, size, count):
    """``count`` blocks of ``size`` neighbours along ``axis``, as indices."""
    return [(slice(None),) * axis + (slice(k * size, (k + 1) * size),) for k in range(count)]


def rows(n):
    return blocks(0, 1, n)


def columns(n):
    return blocks(1, 1, n)


def channels_of_transposed(groups, inputs, outputs):
    """An output channel is fed by the inputs of its own group only (torch: in, out / groups, k)."""
    ins, outs = inputs // groups, outputs // groups
    return [(slice(g * ins, (g + 1) * ins), o) for g in range(groups) for o in range(outs)]


def lora(inner, outer):
    return Host(lora_A=nn.ModuleDict({"default": inner}), lora_B=nn.ModuleDict({"default": outer}))


LINEAR = (4, 12)  # inputs, outputs of fused q, k, v: 2 heads of size 2
CASES = {
    "linear": (lambda: nn.Linear(3, 5), "weight", "row", rows(5)),
    "bilinear": (lambda: nn.Bilinear(3, 4, 1), "weight", "slice0", rows(1)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 4), "weight", "slice0", rows(3)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 2), "weight", "slice0", rows(3)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), "weight", "slice0", rows(3)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), "weight", "slice0", rows(8)),
    "one channel": (lambda: nn.Conv1d(3, 1, 2), "weight", "slice0", rows(1)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(2, 3, 2), "weight", "transposed", columns(3)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(2, 3, 2), "weight", "transposed", columns(3)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(2, 3, 2), "weight", "transposed", columns(3)),
    "transposed in groups": (
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
        "weight",
        "transposed",
        channels_of_transposed(2, 4, 6),
    ),
    "transposed, length of its weight norm": (
        lambda: nn.utils.weight_norm(nn.ConvTranspose2d(2, 3, 2)),
        "weight_g",
        "slice0",
        rows(2),
    ),
    "embedding": (lambda: nn.Embedding(5, 3, padding_idx=1), "weight", "row", rows(5)),
    "embedding bag": (lambda: nn.EmbeddingBag(5, 3), "weight", "row", rows(5)),
    "lstm": (lambda: nn.LSTM(3, 2), "weight_ih_l0", "row", rows(8)),
    "gru cell": (lambda: nn.GRUCell(3, 2), "weight_hh", "row", rows(6)),
    "attention": (
        lambda: nn.MultiheadAttention(6, 3),
        "in_proj_weight",
        "qkv_head",
        blocks(0, 2, 9),
    ),
    "attention output": (
        lambda: nn.MultiheadAttention(6, 3),
        "out_proj.weight",
        "head_columns",
        blocks(1, 2, 3),
    ),
    "attention with its own keys": (
        lambda: nn.MultiheadAttention(6, 3, kdim=5, vdim=4),
        "k_proj_weight",
        "head",
        blocks(0, 2, 3),
    ),
    "attention in a layer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8),
        "self_attn.in_proj_weight",
        "qkv_head",
        blocks(0, 2, 6),
    ),
    "qkv": (lambda: Host(qkv=nn.Linear(*LINEAR), num_heads=2), "qkv.weight", "qkv_head", blocks(0, 2, 6)),
    "Wqkv": (lambda: Host(Wqkv=nn.Linear(*LINEAR), n_head=2), "Wqkv.weight", "qkv_head", blocks(0, 2, 6)),
    "in_proj": (
        lambda: Host(attn=Host(in_proj=nn.Linear(*LINEAR), heads=2)),
        "attn.in_proj.weight",
        "qkv_head",
        blocks(0, 2, 6),
    ),
    "qkv of another width": (
        lambda: Host(qkv=nn.Linear(5, 12), num_heads=2, head_dim=2),
        "qkv.weight",
        "qkv_head",
        blocks(0, 2, 6),
    ),
    "query_key_value": (
        lambda: Host(query_key_value=nn.Linear(*LINEAR), num_attention_heads=2),
        "query_key_value.weight",
        "head_qkv",
        blocks(0, 2, 6),
    ),
    "qkv, heads unknown": (lambda: Host(qkv=nn.Linear(*LINEAR)), "qkv.weight", "row", rows(12)),
    "qkv, heads no number": (
        lambda: Host(qkv=nn.Linear(*LINEAR), heads=nn.Linear(2, 2), num_heads=True),
        "qkv.weight",
        "row",
        rows(12),
    ),
    "qkv, fewer keys": (  # 4 heads of 2 and 1 + 1 for keys and values: 12 rows, as 3 * 4 would be
        lambda: Host(qkv=nn.Linear(8, 12), num_heads=4),
        "qkv.weight",
        "row",
        rows(12),
    ),
    "query": (
        lambda: Host(query=nn.Linear(4, 6), num_attention_heads=3),
        "query.weight",
        "head",
        blocks(0, 2, 3),
    ),
    "q_proj, heads unknown": (lambda: Host(q_proj=nn.Linear(4, 6)), "q_proj.weight", "row", rows(6)),
    "k_proj, fewer heads": (
        lambda: Host(q_proj=nn.Linear(8, 8), k_proj=nn.Linear(8, 4), num_heads=4),
        "k_proj.weight",
        "head",
        blocks(0, 2, 2),
    ),
    "v_proj, heads by size": (
        lambda: Host(v_proj=nn.Linear(8, 4), head_dim=2),
        "v_proj.weight",
        "head",
        blocks(0, 2, 2),
    ),
    "k_proj, heads do not divide": (
        lambda: Host(k_proj=nn.Linear(8, 5), head_dim=2),
        "k_proj.weight",
        "row",
        rows(5),
    ),
    "o_proj": (
        lambda: Host(o_proj=nn.Linear(6, 4), num_heads=3),
        "o_proj.weight",
        "head_columns",
        blocks(1, 2, 3),
    ),
    "out_proj that no heads write": (
        lambda: Host(out_proj=nn.Linear(7, 4), num_heads=3),
        "out_proj.weight",
        "row",
        rows(4),
    ),
    "Conv1D": (lambda: Host(c_fc=Conv1D(5, 3)), "c_fc.weight", "column", columns(5)),
    "Conv1D qkv": (
        lambda: Host(c_attn=Conv1D(12, 4), num_heads=2),
        "c_attn.weight",
        "qkv_head",
        blocks(1, 2, 6),
    ),
    "Conv1D qkv, heads unknown": (lambda: Host(c_attn=Conv1D(12, 4)), "c_attn.weight", "column", columns(12)),
    "Conv1D output": (
        lambda: Host(c_proj=Conv1D(5, 4), num_heads=2),
        "c_proj.weight",
        "head_columns",
        blocks(0, 2, 2),
    ),
    "lora A": (
        lambda: lora(nn.Linear(5, 2), nn.Linear(2, 3)),
        "lora_A.default.weight",
        "rank_rows",
        rows(2),
    ),
    "lora B": (
        lambda: lora(nn.Linear(5, 2), nn.Linear(2, 3)),
        "lora_B.default.weight",
        "rank_columns",
        columns(2),
    ),
    "lora B of a convolution": (
        lambda: lora(nn.Conv2d(5, 2, 3), nn.Conv2d(2, 3, 1)),
        "lora_B.default.weight",
        "rank_columns",
        columns(2),
    ),
    "lora A, raw": (lambda: Host(lora_A=torch.randn(2, 5)), "lora_A", "rank_rows", rows(2)),
    "lora B, raw": (lambda: Host(q=Host(lora_B=torch.randn(3, 2))), "q.lora_B", "rank_columns", columns(2)),
    "lora up": (lambda: Host(lora_up=nn.Linear(2, 3)), "lora_up.weight", "rank_columns", columns(2)),
    "lora down": (lambda: Host(lora_down=nn.Linear(5, 2)), "lora_down.weight", "rank_rows", rows(2)),
    "lora embedding B": (
        lambda: Host(lora_embedding_B=nn.ParameterDict({"default": torch.randn(3, 2)})),
        "lora_embedding_B.default",
        "rank_columns",
        columns(2),
    ),
    "positions": (
        lambda: Host(pos_embed=torch.randn(1, 5, 3)),
        "pos_embed",
        "row",
        [(0, t) for t in range(5)],
    ),
    "class token": (lambda: Host(cls_token=torch.randn(1, 1, 3)), "cls_token", "row", [(0, 0)]),
    "raw matrix": (lambda: Host(table=torch.randn(4, 3)), "table", "slice0", rows(4)),
    "raw tensor": (lambda: Host(x=torch.randn(2, 3, 2, 2)), "x", "slice0", rows(2)),
}  # fmt: skip


def objective_of(net, groupings=None):
    space = ParameterSpace.from_module(net, groupings)
    return FunctionObjective(
        lambda theta: (theta * theta).sum(), space.flatten(dict(net.named_parameters())), space
    )


def naive(weights, drawn, slices):
    """Filter normalization by a loop; entries in no slice stay NaN."""
    made = np.full(weights.shape, np.nan)
    for index in slices:
        d, w = drawn[index], weights[index]
        made[index] = d * np.sqrt((w * w).sum()) / (np.sqrt((d * d).sum()) + 1e-10)
    return made


@pytest.mark.parametrize("case", CASES)
def test_the_table_agrees_with_a_loop(case):
    make, name, rule, slices = CASES[case]
    net = seeded(make).double()
    objective = objective_of(net)
    row = next(row for row in table(objective.space) if row.name == name)
    assert (row.rule, row.groups, row.role) == (rule, len(slices), "weight")
    weights = net.get_parameter(name).detach().numpy()
    expected = naive(weights, generator(0, 0, name).standard_normal(weights.shape), slices)
    found = objective.space.unflatten(random_plane(objective).basis[0])[name].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)


def test_every_entry_of_the_table_names_a_rule_and_is_tested():
    assert set(TABLE.values()) <= set(RULES)
    tested = {rule for _, _, rule, _ in CASES.values()}
    assert set(TABLE.values()) <= tested


def test_scalars_and_vectors_are_one_group():
    space = ParameterSpace.from_module(Host(scale=torch.tensor(2.0), gain=torch.ones(3)))
    assert [row[-2:] for row in table(space)] == [("whole", 1)] * 2
    objective = objective_of(Host(scale=torch.tensor(2.0).double()))
    assert abs(float(random_plane(objective, axes=1).basis)) == pytest.approx(2.0)


def test_a_padding_row_does_not_move():
    net = seeded(lambda: nn.Embedding(4, 3, padding_idx=2))
    moved = random_plane(objective_of(net)).basis.view(2, 4, 3).any(dim=2)
    assert moved.tolist() == [[True, True, False, True]] * 2


def test_a_lora_direction_scales_as_its_factors_do():
    """A -> cA, B -> B/c leaves BA as it is; the step it takes must be the same one."""
    net = seeded(lambda: Host(lora_A=torch.randn(2, 5), lora_B=torch.randn(3, 2))).double()
    factors = torch.tensor([0.01, 30.0]).double()

    def product(net):
        objective = objective_of(net)
        theta = objective.theta + 0.3 * random_plane(objective).basis[0]
        parts = objective.space.unflatten(theta)
        return parts["lora_B"] @ parts["lora_A"]

    before = product(net)
    with torch.no_grad():
        net.lora_A.mul_(factors[:, None])
        net.lora_B.div_(factors)
    np.testing.assert_allclose(product(net).numpy(), before.numpy(), rtol=1e-12, atol=1e-12)


@st.composite
def grouped_tensors(draw):
    view = tuple(draw(st.lists(st.integers(1, 4), max_size=4)))
    within = tuple(d for d in range(len(view)) if draw(st.booleans()))
    drawn, weights = normal(*view, seed=draw(st.integers(0, 99))), normal(*view, seed=100)
    # Away from zero, where the guard of 1e-10 is less than 1e-9 of a group's norm.
    return Grouping("any", view, within), drawn + 0.2 * drawn.sign(), weights


def naive_groups(grouping):
    """Index tuples of each group, by a walk over all entries."""
    groups = {}
    for index in np.ndindex(*grouping.view):
        key = tuple(i for d, i in enumerate(index) if d not in grouping.within)
        groups.setdefault(key, []).append(index)
    return list(groups.values())


@settings(max_examples=60, deadline=None)
@given(grouped_tensors(), st.floats(0.01, 100))
def test_groups_have_the_norms_of_the_weights_and_scale_with_them(made, factor):
    grouping, drawn, weights = made
    groups = naive_groups(grouping)
    assert (grouping.groups, grouping.entries) == (len(groups), len(groups[0]))
    found = normalized(drawn, weights, "filter", grouping)
    for group in groups:
        d, w = (np.array([float(t[i]) for i in group]) for t in (found, weights))
        assert np.linalg.norm(d) == pytest.approx(np.linalg.norm(w), rel=1e-9)
    scaled = weights.clone()
    for i in groups[0]:
        scaled[i] *= factor
    again = normalized(drawn, scaled, "filter", grouping)
    for n, group in enumerate(groups):
        for i in group:
            assert float(again[i]) == pytest.approx(float(found[i]) * (1 if n else factor))


def test_a_tensor_divided_by_its_rule_is_not_whole_by_its_shape():
    assert whole((2, 3)).is_whole and whole(()).is_whole
    assert not Grouping("row", (1, 3), (1,)).is_whole
    with pytest.raises(ValueError, match=r"within is \(2,\): expected different dimensions"):
        Grouping("row", (1, 3), (2,))
    with pytest.raises(ValueError, match=r"within is \(1, 1\)"):
        Grouping("row", (1, 3), (1, 1))


def pairs(module, leaf, shape):
    assert isinstance(module, nn.Linear) and leaf == "weight"
    return Grouping("pairs", (shape[0] // 2, 2, shape[1]), (1, 2))


@pytest.mark.parametrize(
    ("groupings", "rules"),
    [
        (None, ["row", "whole", "row", "whole"]),
        ({nn.Linear: "column"}, ["column", "whole", "column", "whole"]),
        ({"Linear": "whole"}, ["whole", "whole", "whole", "whole"]),
        ({"b.*": "slice0"}, ["row", "whole", "slice0", "slice0"]),
        ({"a.weight": pairs, nn.Module: "slice1"}, ["pairs", "whole", "slice1", "whole"]),
        ({nn.Linear: "slice1", "a.weight": pairs}, ["slice1", "whole", "slice1", "whole"]),
        ({nn.Conv2d: "slice1"}, ["row", "whole", "row", "whole"]),
        ({"*.b.weight": "whole"}, ["row", "whole", "whole", "whole"]),
    ],
)
def test_entries_of_the_user_win(groupings, rules):
    net = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 2)})
    assert [row.rule for row in table(ParameterSpace.from_module(net, groupings))] == rules
    assert [row.rule for row in table(ParameterSpace.from_module(net))] == ["row", "whole"] * 2


def test_entries_of_the_user_act_on_the_direction():
    net = seeded(lambda: nn.Linear(3, 4, bias=False)).double()
    objective = objective_of(net, {"weight": pairs})
    weights = net.weight.detach().numpy()
    drawn = generator(0, 0, "weight").standard_normal((4, 3))
    found = random_plane(objective).basis[0].view(4, 3).numpy()
    np.testing.assert_allclose(found, naive(weights, drawn, blocks(0, 2, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("groupings", "message"),
    [
        (
            {"weight": "rows"},
            r"groupings\['weight'\] is 'rows': expected one of whole, row, column",
        ),
        ({"wieght": "row"}, "key 'wieght' matches no trainable parameter and no module class"),
        ({"bias": "column"}, r"rule 'column' does not fit 'bias' of shape \(2,\) in Linear"),
        ({nn.Linear: "head"}, "rule 'head' does not fit 'weight'"),
        ({nn.Linear: "transposed"}, "rule 'transposed' does not fit"),
        ({nn.Linear: lambda *_: Grouping("half", (3,), (0,))}, "whose view has the 6 entries"),
        ({nn.Linear: lambda *_: "row"}, "the callable for 'weight' gave 'row'"),
    ],
)
def test_bad_entries_of_the_user(groupings, message):
    with pytest.raises(ValueError, match=message):
        ParameterSpace.from_module(nn.Linear(3, 2), groupings)

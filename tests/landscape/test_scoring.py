"""Named losses: what one example's loss is, and what does not count."""

import pytest
import torch
import torch.nn.functional as F
from problems import normal
from torch import nn

from landscape.data_objective import DataObjective
from landscape.scoring import (
    logit_normalized_cross_entropy,
    next_token,
    next_token_accuracy,
    resolve_loss,
    resolve_metric,
    uncounted,
)


def labels(*rows):
    return torch.tensor(rows)


PADDED = labels([1, 2, 0], [0, -100, -100], [2, 2, -100])


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_labels_that_do_not_count_are_left_out_of_each_mean(name):
    scores = normal(3, 3, 3).log_softmax(1)  # examples, classes, positions
    found = resolve_loss(name)[0](scores, PADDED)
    for i, counted in enumerate((3, 1, 2)):
        own = torch.stack([-scores[i, PADDED[i, t], t] for t in range(counted)])
        torch.testing.assert_close(found[i], own.mean())
    full = resolve_loss(name)[0](scores, PADDED.clamp(min=0))
    torch.testing.assert_close(
        full, getattr(F, name)(scores, PADDED.clamp(min=0), reduction="none").mean(1)
    )


def test_every_example_weighs_the_same_however_many_labels_count():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(normal(3, 3, 3))

        def forward(self, i):
            return self.table[i]

    net = Scores()
    made = DataObjective(net, (torch.arange(3), PADDED))
    each = [
        F.cross_entropy(net.table[i : i + 1], PADDED[i : i + 1]) for i in range(3)
    ]  # torch's own mean over the counted labels of one example
    torch.testing.assert_close(made.losses(made.theta), torch.stack(each).detach())
    torch.testing.assert_close(made.value(made.theta), torch.stack(each).mean().detach())
    pooled = F.cross_entropy(net.table, PADDED)
    assert abs(float(pooled.detach()) - float(made.value(made.theta))) > 1e-3
    hits = net.table.argmax(1) == PADDED
    expected = (
        hits[0].float().mean() + hits[1, :1].float().mean() + hits[2, :2].float().mean()
    ) / 3
    assert made.metrics(made.theta)["accuracy"] == pytest.approx(float(expected))


def test_one_label_an_example_stays_torchs_own():
    scores, y = normal(5, 3), torch.tensor([0, 1, 2, 1, 0])
    found = resolve_loss("cross_entropy")[0](scores, y)
    assert torch.equal(found, F.cross_entropy(scores, y, reduction="none"))
    hits = resolve_metric("accuracy")[1](scores, y)
    assert torch.equal(hits, scores.argmax(1) == y)
    soft = normal(5, 3, seed=1).softmax(1)
    assert resolve_loss("cross_entropy")[0](scores, soft).shape == (5,)
    assert resolve_loss("mse_loss")[0](scores, soft).shape == (5, 3)


def test_next_token_is_about_the_one_after():
    logits, y = normal(2, 4, 5), labels([3, 1, 4, 0], [2, 0, -100, 1])
    logs = logits.log_softmax(-1)
    found = next_token(logits, y)
    torch.testing.assert_close(found[0], -(logs[0, 0, 1] + logs[0, 1, 4] + logs[0, 2, 0]) / 3)
    torch.testing.assert_close(found[1], -(logs[1, 0, 0] + logs[1, 2, 1]) / 2)
    sure = torch.full((2, 4, 5), -9.0)
    sure[0, 0, 1] = sure[0, 1, 4] = sure[1, 0, 0] = sure[1, 2, 1] = 9.0
    sure[0, 2, 3] = 9.0  # wrong
    torch.testing.assert_close(next_token_accuracy(sure, y), torch.tensor([2 / 3, 1.0]).double())


def test_normalized_logits_forget_scale_and_shift():
    logits, y = normal(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    found = logit_normalized_cross_entropy(logits, y)
    moved = logit_normalized_cross_entropy(7 * logits + normal(6, 1, seed=2), y)
    torch.testing.assert_close(found, moved)
    for i in range(6):
        z = logits[i] - logits[i].mean()
        z = z / z.square().sum().sqrt()
        torch.testing.assert_close(found[i], z.exp().sum().log() - z[y[i]])
    flat = torch.ones(1, 4, requires_grad=True)
    loss = logit_normalized_cross_entropy(flat, torch.tensor([2]))
    assert float(loss.detach().exp()) == pytest.approx(4)
    assert torch.isfinite(torch.autograd.grad(loss.sum(), flat)[0]).all()


def test_normalized_logits_of_many_positions():
    scores = normal(3, 3, 3)
    found = logit_normalized_cross_entropy(scores, PADDED)
    first = logit_normalized_cross_entropy(scores[1, :, :1].T, PADDED[1, :1])
    torch.testing.assert_close(found[1], first[0])


def test_examples_that_count_nowhere():
    y = labels([1, -100], [-100, -100], [-100, 3])
    assert uncounted("cross_entropy", y) == 1
    assert uncounted("next_token", y) == 2  # the first label of an example is nobody's next
    assert uncounted("cross_entropy", torch.tensor([0, -100, -100])) == 2
    assert uncounted("mse_loss", y) == 0
    assert uncounted("cross_entropy", torch.ones(2, 2)) == 0
    assert uncounted(lambda output, y: output, y) == 0


@pytest.mark.parametrize("name", ["no_such_loss", "__name__", "math"])
def test_unknown_losses(name):
    with pytest.raises(
        ValueError, match=f"unknown loss '{name}'.*logit_normalized_cross_entropy, next_token"
    ):
        resolve_loss(name)

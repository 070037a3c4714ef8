"""Settings of the inner loop: the rate of each step, what is masked, and where its tensors are."""

import pytest
import torch

from sharpmaml.inner import InnerLoop

F64 = torch.float64
MASK = torch.tensor([True, False])


def test_the_rate_of_later_steps_is_that_of_the_last_row():
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    inner = InnerLoop(steps=4, rate=rows)
    assert [inner.rate_at(step).tolist() for step in range(4)] == [[1, 2], [3, 4], [3, 4], [3, 4]]


@pytest.mark.parametrize("rate", [2, 0.5, torch.tensor([0.5, 1.0])])
def test_one_rate_is_that_of_every_step(rate):
    inner = InnerLoop(steps=2, rate=rate)
    assert inner.rate_at(0) is rate and inner.rate_at(1) is rate


def test_masked_keeps_what_is_adapted():
    gradient = torch.tensor([[2.0, 3.0], [4.0, 5.0]])
    assert InnerLoop().masked(gradient) is gradient
    assert InnerLoop(adapted=MASK).masked(gradient).tolist() == [[2.0, 0.0], [4.0, 0.0]]


def test_moved_to_the_device_and_dtype_of_the_parameters():
    inner = InnerLoop(3, torch.tensor([0.5, 1.0]), 0.1, "through", adapted=MASK, proximal=2.0)
    there = inner.to(torch.empty(2, dtype=F64, device="meta"))
    assert (there.rate.device.type, there.rate.dtype) == ("meta", F64)
    assert (there.adapted.device.type, there.adapted.dtype) == ("meta", torch.bool)
    assert (there.steps, there.lower, there.eps_grad, there.proximal) == (3, 0.1, "through", 2.0)
    here = inner.to(torch.empty(2, dtype=F64))
    assert here.rate.tolist() == [0.5, 1.0] and here.adapted.tolist() == [True, False]


def test_a_number_has_no_device():
    inner = InnerLoop(rate=0.25).to(torch.empty(2, device="meta"))
    assert inner.rate == 0.25 and inner.adapted is None


@pytest.mark.parametrize("name", ["steps", "lower", "proximal"])
def test_zero_is_allowed_and_less_is_not(name):
    assert getattr(InnerLoop(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match="cannot be negative"):
        InnerLoop(**{name: -1})


def test_the_rate_in_words():
    assert InnerLoop(rate=0.25).shown_rate == 0.25
    assert InnerLoop(rate=torch.tensor([0.25, 0.75])).shown_rate == "learned, mean 0.5"

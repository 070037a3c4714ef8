"""Curvature measures of a meta objective, whose terms are tasks."""

import math

import pytest
import torch
from meta_problems import tanh_meta

from landscape.sharpness.curvature import adaptive_trace, lambda_max, lambda_min, trace
from landscape.sharpness.gradient import gradient_norm
from landscape.sharpness.layers import fisher_rao, minimum_sharpness, relative_flatness
from landscape.sharpness.point import Point
from landscape.sharpness.spectral import effective_dimension, frobenius, negative_mass


def test_terms_are_tasks():
    objective = tanh_meta()
    point, theta = Point(objective), objective.theta
    singles = objective.pieces(1)
    each = torch.stack([torch.func.hessian(o.value)(theta) for o in singles])
    dense = each.mean(0)
    values, vectors = torch.linalg.eigh(dense)
    top = lambda_max(point, tol=1e-8)
    quotients = torch.einsum("p,npq,q->n", vectors[:, -1], each, vectors[:, -1])
    assert top.value == pytest.approx(float(values[-1]), rel=1e-8)
    assert top.influence.of == "tasks"
    assert top.stderr == pytest.approx(float(quotients.std()) / math.sqrt(3), rel=1e-6)
    assert lambda_min(point, tol=1e-8).value == pytest.approx(float(values[0]), rel=0.1)
    traces = torch.stack([h.trace() for h in each])
    found = trace(point, tol=1e-8)
    assert found.value == pytest.approx(float(traces.mean()), rel=1e-8)
    assert found.stderr == pytest.approx(float(traces.std()) / math.sqrt(3), rel=1e-6)
    assert frobenius(point, tol=1e-8).value == pytest.approx(float(dense.norm()), rel=1e-8)
    slopes = torch.stack([o.gradient(theta) for o in singles]) @ theta
    row = fisher_rao(point)
    assert row.value == pytest.approx(float(slopes.square().mean()), rel=1e-8)
    assert row.influence.of == "tasks" and row.stderr is not None
    assert gradient_norm(point).stderr is not None


def test_the_others_have_errors_over_tasks():
    point = Point(tanh_meta())
    for measure in (adaptive_trace, effective_dimension, negative_mass):
        row = measure(point)
        assert row.influence.of == "tasks" and row.data_error > 0, row.name
    row = relative_flatness(point)
    assert row.settings["head"] == "2.weight" and not row.settings["scaled"]
    assert "inputs of the head are not known" in row.note and row.influence.of == "tasks"
    found = minimum_sharpness(point)
    assert found.settings["layers"] == 2 and found.value > 0

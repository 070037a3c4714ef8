"""Surface, Hessian and sharpness runs that are killed, interrupted and starved, from the command line.

A few moments of each kind; `benchmarks/faults_analysis.py` takes hundreds.
"""

import os
import random
import signal

import pytest
from fault_campaign import KINDS, MODULES, Campaign
from fault_tools import needs_shim, server

from landscape.holding import Hold

pytestmark = needs_shim


@pytest.fixture(scope="module")
def forks():
    with server(*MODULES) as made:
        yield made


@pytest.fixture(scope="module", params=KINDS)
def campaign(request, forks, tmp_path_factory):
    return Campaign(forks, tmp_path_factory.mktemp(request.param), request.param)


def right(tally):
    assert tally.complaints == []
    assert tally.unreadable == tally.different == tally.told_lost == 0


@pytest.mark.parametrize("how", ["time", "torn"])
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(campaign, how):
    found = campaign.killed(random.Random(f"{campaign.kind} {how}"), how, most=2)
    assert found.faults > 0 or how == "time"
    right(found)
    if campaign.kind in ("hessian", "sharpness"):  # points of a surface are computed in rounds
        assert found.begun_lost <= 1


def test_signals_keep_the_work_and_say_one_line(campaign):
    number = signal.SIGINT if campaign.kind == "surface" else signal.SIGTERM
    right(campaign.signalled(random.Random(campaign.kind), number))


def test_a_full_disk_is_one_line_and_costs_nothing(campaign):
    found = campaign.starved(campaign.operations // 2, "enospc")
    assert found.faults == 1
    right(found)


def test_a_second_process_is_refused_with_the_name_of_the_first(campaign):
    held = campaign.target
    if campaign.kind == "hessian":
        held = held.with_name(f"{held.name}.products")
    campaign.clean()
    hold = Hold(held)
    try:
        ended = campaign.run()
    finally:
        hold.release()
    assert ended.status == 1
    assert len(ended.lines) == 1
    assert f"{held} is being written by process {os.getpid()} on" in ended.lines[0]
    assert list(campaign.out.iterdir()) == []


@pytest.fixture(scope="module")
def surface(forks, tmp_path_factory):
    return Campaign(forks, tmp_path_factory.mktemp("surface"), "surface")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_removed_during_a_run_is_made_again(surface, what):
    right(surface.removed(what))


@pytest.mark.parametrize("how", ["eio", "erofs"])
def test_a_disk_that_fails_or_may_not_be_written(surface, how):
    found = surface.starved(3, how)
    assert found.faults == 1
    right(found)


def test_a_clock_that_is_set_back_changes_nothing(surface):
    right(surface.clock(-86400.0))

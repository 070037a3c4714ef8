"""Surfaces in shards: what one is, and that all together are the whole."""

import pytest
from problems import conv_net, conv_objective, images

from landscape.data_objective import DataObjective
from landscape.directions import random_plane
from landscape.parallel import shard_of
from landscape.resume import merge
from landscape.store import load
from landscape.surface import evaluate


def values(surface):
    return surface.drop_attrs()


def shards(folder, count, **options):
    objective = conv_objective()
    plane = random_plane(objective)
    files = []
    for i in range(1, count + 1):
        files.append(folder / f"{i}.nc")
        evaluate(
            objective, plane, points=5, executor="plain", out=files[-1], shard=(i, count), **options
        )
    whole = evaluate(objective, plane, points=5, executor="plain", **options)
    return files, whole


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shards_together_are_the_whole_bit_for_bit(tmp_path, count):
    files, whole = shards(tmp_path, count, keep_terms=True)
    merged = merge(files[::-1], tmp_path / "whole.nc")
    assert values(merged).identical(values(whole))
    assert merged.attrs["health"] == whole.attrs["health"]
    assert values(load(tmp_path / "whole.nc")).identical(values(whole))
    parts = [load(file)["evaluated"].values for file in files]
    assert (sum(part.astype(int) for part in parts) == 1).all()


def test_a_missing_shard_leaves_gaps_that_a_run_fills(tmp_path):
    files, whole = shards(tmp_path, 3)
    merged = merge(files[:2], tmp_path / "whole.nc")
    assert 0 < merged["evaluated"].values.mean() < 1
    assert "health" not in merged.attrs
    objective = conv_objective()
    filled = evaluate(objective, random_plane(objective), points=5, out=tmp_path / "whole.nc")
    assert values(filled).identical(values(whole))


def test_shards_of_different_surfaces_are_refused(tmp_path):
    files, _ = shards(tmp_path, 2)
    x, y = images()
    other = DataObjective(conv_net(), (x + 1, y))
    plane = random_plane(other)
    odd = tmp_path / "odd.nc"
    evaluate(other, plane, points=5, executor="plain", out=odd, shard=(2, 2))
    with pytest.raises(ValueError, match="odd.nc is a shard of another surface: objective.data"):
        merge([files[0], odd], tmp_path / "whole.nc")
    same = conv_objective()
    fused = tmp_path / "f.nc"
    evaluate(same, random_plane(same), points=5, executor="fused", out=fused, shard=(2, 2))
    with pytest.raises(ValueError, match="executor is fused there and plain in"):
        merge([files[0], fused], tmp_path / "whole.nc")
    with pytest.raises(ValueError, match="no shards given"):
        merge([], tmp_path / "whole.nc")
    assert not (tmp_path / "whole.nc").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (1, 2)}, "must not choose its executor by the clock"),
        ({"shard": (3, 2), "executor": "plain"}, r"shard is \(3, 2\)"),
        ({"shard": (1, 2), "executor": "plain", "tolerance": 0.1}, "do not go together"),
        ({"basin_tolerance": 0.1}, "basin_tolerance needs tolerance"),
        (
            {"executor": "warp"},
            "unknown executor 'warp': expected auto, repeatable or one of plain, chunked",
        ),
    ],
)
def test_options_that_do_not_go_together(options, message):
    objective = conv_objective()
    with pytest.raises(ValueError, match=message):
        evaluate(objective, random_plane(objective), points=5, **options)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/3/5", "-1/2", ""])
def test_shards_have_a_number_and_a_count(text):
    with pytest.raises(ValueError, match="expected i/n"):
        shard_of(text)
    assert shard_of("2/3") == (2, 3)

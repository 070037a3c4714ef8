"""Surface files of loss-landscape, written here by h5py the way its own code fills them."""

import json

import h5py
import numpy as np
import pytest
import xarray as xr

import landscape
from landscape.exchange.li2018 import read_surface, write_surface


def f(x, y):
    return 1 + x**2 + 0.3 * y


def reference_file(path, x, y=None, function=f, part="train", unfilled=(), dir_file=""):
    """Filled through the flat index of a mesh with x fastest, in an array of shape (nx, ny)."""
    with h5py.File(path, "w") as file:
        file["dir_file"] = dir_file
        file["xcoordinates"] = x
        shape, places = (len(x),), [(a, 0.0) for a in x]
        if y is not None:
            file["ycoordinates"] = y
            shape, places = (len(x), len(y)), [(a, b) for b in y for a in x]
        losses, accuracies = -np.ones(shape), -np.ones(shape)
        for index, place in enumerate(places):
            if index not in unfilled:
                losses.ravel()[index] = function(*place)
                accuracies.ravel()[index] = 100 * 0.25
        file[f"{part}_loss"], file[f"{part}_acc"] = losses, accuracies
    return path


@pytest.mark.parametrize("counts", [(5, 5), (5, 3), (2, 7)])
def test_a_plane_of_any_shape_comes_back_as_its_function(tmp_path, counts):
    x, y = np.linspace(-1, 1, counts[0]), np.linspace(-0.5, 2, counts[1])
    found = read_surface(reference_file(tmp_path / "s.h5", x, y))
    assert found["loss"].dims == ("beta", "alpha")
    for a in x:
        for b in y:
            assert found["loss"].sel(alpha=a, beta=b).item() == f(a, b)
    assert (found["accuracy"] == 0.25).all() and found["evaluated"].values.all()
    assert np.isnan(found["loss_stderr"]).all()


def test_axes_may_descend(tmp_path):
    path = reference_file(tmp_path / "s.h5", np.array([1.0, 0.0, -1.0]), np.array([2.0, -2.0]))
    found = read_surface(path)
    assert found["alpha"].values.tolist() == [-1, 0, 1] and found["beta"].values.tolist() == [-2, 2]
    assert found["loss"].sel(alpha=1.0, beta=-2.0).item() == f(1, -2)


def test_settings_are_read_off_the_names(tmp_path):
    name = "m/model_300.t7_weights_xignore=biasbn_xnorm=filter_yignore=biasbn_ynorm=filter.h5"
    x = np.linspace(-1, 1, 5)
    path = tmp_path / "model_300.t7_weights_xnorm=filter.h5_[-1.0,1.0,5].h5"
    found = read_surface(reference_file(path, x, x, dir_file=name))
    assert found.attrs["label"] == "model_300.t7"
    assert (found.attrs["normalize"], found.attrs["ignore"]) == ("filter", ["bias", "norm"])
    assert (found.attrs["span"], found.attrs["points"], found.attrs["axes"]) == (1.0, 5, 2)
    assert found.attrs["centre_loss"] == 1.0 and found.attrs["group"] == "train data"
    assert json.loads(found.attrs["imported"])["directions"] == name
    plain = read_surface(
        reference_file(path, np.linspace(0, 2, 3), dir_file="a_xnorm=layer_ynorm=weight"), label="a"
    )
    assert plain.attrs["label"] == "a"
    assert (plain.attrs["normalize"], plain.attrs["ignore"]) == ("", [])
    assert (plain.attrs["span"], plain.attrs["axes"]) == ([0.0, 2.0], 1)
    oblong = read_surface(reference_file(path, x, x[:3]))
    assert "points" not in oblong.attrs and "span" not in oblong.attrs


def test_unfilled_entries_are_not_evaluated(tmp_path):
    x = np.linspace(-1, 1, 3)

    def overflowing(a, b):
        return np.nan if a == b == 1 else f(a, b)

    path = reference_file(tmp_path / "s.h5", x, x, overflowing, unfilled=(0, 4))
    found = read_surface(path)
    assert found["evaluated"].values.ravel().tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 1]
    assert np.isnan(found["loss"].values.ravel()[[0, 4, 8]]).all()
    assert np.isnan(found["accuracy"].values.ravel()).tolist() == [
        True, False, False, False, True, False, False, False, False,
    ]  # fmt: skip
    assert "centre_loss" not in found.attrs  # the centre is one of them


def test_the_part_is_chosen(tmp_path):
    x = np.linspace(-1, 1, 3)
    path = reference_file(tmp_path / "s.h5", x, part="test")
    assert read_surface(path).attrs["group"] == "test data"
    with pytest.raises(ValueError, match="'train_loss' is missing"):
        read_surface(path, "train")
    with pytest.raises(ValueError, match="part is 'val'"):
        read_surface(path, "val")
    with h5py.File(path, "a") as file:
        file["train_loss"] = np.full(3, 9.0)
    assert read_surface(path)["loss"].values.tolist() == [9, 9, 9]
    assert "accuracy" not in read_surface(path)
    assert read_surface(path, "test")["loss"].values.tolist() == [f(a, 0) for a in x]


@pytest.mark.parametrize("counts", [(3, 3), (4, 2), (3, None)])
def test_what_we_write_is_what_they_would_have_written(tmp_path, counts):
    x = np.linspace(-1, 1, counts[0])
    y = None if counts[1] is None else np.linspace(0.25, 2, counts[1])
    theirs = reference_file(tmp_path / "theirs.h5", x, y, unfilled=(1,), dir_file="d.h5")
    assert write_surface(read_surface(theirs), tmp_path / "ours.h5") == ()
    with h5py.File(theirs) as one, h5py.File(tmp_path / "ours.h5") as other:
        assert set(other) == {*one, "settings"}
        assert other["dir_file"][()] == b"d.h5"
        for name in set(one) - {"dir_file"}:
            assert one[name].dtype == other[name].dtype == np.float64
            np.testing.assert_array_equal(one[name][()], other[name][()])


def test_what_the_format_cannot_tell_is_told(tmp_path):
    line = xr.Dataset(
        {
            "loss": ("alpha", [0.0, -2.0, 3.0, np.nan, np.nan]),
            "evaluated": ("alpha", np.array([1, 1, 0, 1, 0], np.int8)),
        },
        {"alpha": np.arange(5.0)},
    )
    assert landscape.export(line, tmp_path / "s.h5", part="test") == (
        "there is no accuracy, which the reference's figure of a line asks for",
        "1 interpolated losses cannot be told from computed ones",
        "2 losses are not positive: the reference takes them for missing",
    )
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_array_equal(file["test_loss"][:], [0, -2, 3, np.nan, -1])
    with pytest.raises(ValueError, match="part is 'val'"):
        landscape.export(line, tmp_path / "s.h5", part="val")


def test_an_imported_surface_is_saved_and_drawn(tmp_path):
    x = np.linspace(-1, 1, 5)
    for y in (x, x[:3], None):
        found = read_surface(reference_file(tmp_path / "s.h5", x, y))
        landscape.save(found, tmp_path / "s.nc")
        back = landscape.load(tmp_path / "s.nc")
        assert back.drop_attrs().identical(found.drop_attrs())
        assert back.attrs == found.attrs
        draw = landscape.plot.line if y is None else landscape.plot.contour
        draw(back), draw(back, backend="matplotlib")


X = np.linspace(-1, 1, 3)


def broken(path, kind):
    reference_file(path, X, X)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:900])
        return
    if kind == "text":
        path.write_text("xcoordinates")
        return
    if kind == "missing":
        path.unlink()
        return
    with h5py.File(path.with_suffix(".other"), "w") as other:
        other["secret"] = np.ones((3, 3))
    with h5py.File(path, "a") as file:
        name = (
            "xcoordinates" if kind in ("no axis", "twice", "nan", "one", "flat") else "train_loss"
        )
        del file[name]
        if kind == "shape":
            file[name] = np.ones((3, 4))
        elif kind == "ravelled":
            file[name] = np.ones(9)
        elif kind == "strings":
            file[name] = "1.0"
        elif kind == "group":
            file.create_group(name)
        elif kind == "link":
            file[name] = h5py.ExternalLink(path.with_suffix(".other").name, "secret")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3, 3), float)
            layout[:] = h5py.VirtualSource(path.with_suffix(".other"), "secret", (3, 3))
            file.create_virtual_dataset(name, layout)
        elif kind == "external":
            raw = [(str(path.with_suffix(".other")), 0, 72)]
            file.create_dataset(name, (3, 3), float, external=raw)
        elif kind == "huge":
            file.create_dataset(name, (10**6, 10**6), "f8", chunks=(1000, 1000))
        elif kind == "complex":
            file[name] = np.ones((3, 3), complex)
        elif kind == "empty":
            file[name] = h5py.Empty("f8")
        elif kind == "twice":
            file[name] = [0.0, 1.0, 1.0]
        elif kind == "nan":
            file[name] = [0.0, 1.0, np.nan]
        elif kind == "one":
            file[name] = [0.0]
        elif kind == "flat":
            file[name] = np.ones((3, 1))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", "not an HDF5 file, or cut short"),
        ("text", "not an HDF5 file"),
        ("missing", "no such file"),
        ("no loss", "'train_loss' or 'test_loss' is missing"),
        ("no axis", "'xcoordinates' is missing"),
        ("shape", r"'train_loss' has shape \(3, 4\): expected \(3, 3\)"),
        ("ravelled", r"'train_loss' has shape \(9,\)"),
        ("strings", "'train_loss' holds no numbers"),
        ("group", "'train_loss' holds no numbers"),
        ("complex", "'train_loss' holds no numbers"),
        ("link", "'train_loss' is a link to elsewhere"),
        ("virtual", "'train_loss' is kept in another file"),
        ("external", "'train_loss' is kept in another file"),
        ("huge", "'train_loss' has 1000000000000 entries"),
        ("empty", "'train_loss' has None entries"),
        ("twice", "xcoordinates has the same position twice"),
        ("nan", "xcoordinates is no axis"),
        ("one", "xcoordinates is no axis"),
        ("flat", "xcoordinates is no axis"),
    ],
)
def test_a_bad_file_gives_one_line(tmp_path, kind, message):
    path = tmp_path / "s.h5"
    broken(path, kind)
    with pytest.raises(ValueError, match=message) as caught:
        read_surface(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_every_cut_of_a_file_gives_one_line(tmp_path):
    whole = reference_file(tmp_path / "s.h5", X, X).read_bytes()
    for length in range(0, len(whole) - 1, 487):
        (tmp_path / "cut.h5").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut.h5: ") as caught:
            read_surface(tmp_path / "cut.h5")
        assert "\n" not in str(caught.value)


def test_flipped_bytes_give_numbers_or_one_line(tmp_path):
    whole = reference_file(tmp_path / "s.h5", X, X).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.h5"
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, 2500, 3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert read_surface(path)["loss"].size > 0
        except ValueError as error:
            assert "\n" not in str(error)


def test_names_of_fixed_length_are_read_and_damaged_ones_left_out(tmp_path):
    path = reference_file(tmp_path / "s.h5", X, dir_file=np.bytes_("a_xnorm=layer.h5"))
    assert read_surface(path).attrs["normalize"] == "layer"
    whole = reference_file(path, X, dir_file="a_xnorm=filter.h5").read_bytes()
    assert read_surface(path).attrs["normalize"] == "filter"
    heap = whole.index(b"GCOL")
    for place in (heap, heap + 16):  # its signature, and the number of its first object
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        assert read_surface(path).attrs["normalize"] == ""


@pytest.mark.filterwarnings("error")
def test_numbers_wider_than_ours_become_infinite(tmp_path):
    reference_file(tmp_path / "s.h5", [-1.0, 0.0, 1.0])
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        wide = file["train_loss"][()].astype(np.longdouble)
        wide[0] = np.longdouble("1e400")
        del file["train_loss"]
        file["train_loss"] = wide
    found = read_surface(tmp_path / "s.h5")["loss"].values
    assert np.isinf(found).sum() == 1 and np.isfinite(found).sum() == 2

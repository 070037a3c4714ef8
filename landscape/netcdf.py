"""NetCDF-4 files as Datasets, without libhdf5 in this process: what :func:`xarray.open_dataset` gives, read apart.

The layout is that of netCDF-4 on HDF5 (NetCDF User's Guide, appendix "File format specifications"): axes are named by
references to dimension scales; a dimension without values of its own says so in its ``NAME``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from landscape import hdf5_apart
from landscape.wording import one_line

_HIDDEN = frozenset(
    ("REFERENCE_LIST", "CLASS", "DIMENSION_LIST", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict",
     "_NCProperties")
)  # fmt: skip
_NO_VALUES = "This is a netCDF dimension but not a netCDF variable"
_OTHER_NAME = "_nc4_non_coord_"  # before a variable that is called as a dimension and is none


def read(path: Path) -> xr.Dataset:
    """The Dataset in a file, in memory.

    Raises:
        ValueError: no NetCDF-4 file, or a damaged one; OSError where it cannot be opened.
    """
    root = hdf5_apart.tree(path)
    try:
        variables = {}
        for name, node in root["entries"]:
            found = _variable(name, node)
            if found is not None:
                variables[name.removeprefix(_OTHER_NAME)] = found
        axes = {name: one for name, one in variables.items() if one.dims == (name,)}
        variables = {name: one for name, one in variables.items() if name not in axes} | axes
        return xr.decode_cf(xr.Dataset(variables, attrs=_attributes(root))).drop_encoding()
    except (
        Exception
    ) as error:  # xarray raises many kinds for names, dates and fill values that do not fit
        raise ValueError(f"it is no whole NetCDF file ({one_line(error, 200)})") from None


def _variable(name: str, node: dict[str, Any]) -> xr.Variable | None:
    """A variable; ``None`` for groups and for dimensions without values."""
    if node["kind"] == "group":
        return None
    told = dict(node.get("attributes", ()))
    if _word(told.get("NAME")).startswith(_NO_VALUES):
        return None
    if node["kind"] not in ("numbers", "bytes", "texts"):
        raise ValueError(f"{name} holds neither numbers nor texts")
    dims = node["dimensions"]
    if dims is None:
        scale = _word(told.get("CLASS")) == "DIMENSION_SCALE"
        dims = [name] if scale and len(node["shape"]) == 1 else []
    if len(dims) != len(node["shape"]):
        raise ValueError(f"the axes of {name} have no names")
    # How xarray knows texts of any length from other objects.
    encoding = {"dtype": str} if node["kind"] == "texts" else None
    return xr.Variable(dims, _values(node), _attributes(node), encoding)


def _values(node: dict[str, Any]) -> Any:
    if node["kind"] == "texts":
        flat = np.empty(len(node["texts"]), dtype=object)
        flat[:] = node["texts"]
        return flat.reshape(node["shape"])
    return node["array"]


def _attributes(node: dict[str, Any]) -> dict[str, Any]:
    """Attributes as netCDF means them: lists of one are single values."""
    return {
        name: _attribute(told) for name, told in node.get("attributes", ()) if name not in _HIDDEN
    }


def _attribute(told: dict[str, Any]) -> Any:
    if told["kind"] == "empty":
        return b"" if told["dtype"] == "|S1" else np.array([], dtype=told["dtype"])
    if told["kind"] == "texts":
        texts = told["texts"]
        return texts[0] if len(texts) == 1 else texts
    if told["kind"] not in ("numbers", "bytes"):
        raise ValueError("an attribute holds neither numbers nor texts")
    array = told["array"]
    if told["kind"] == "bytes":
        words = [word.decode("utf-8", "surrogateescape") for word in array.reshape(-1).tolist()]
        return words[0] if len(words) == 1 else words
    return array.reshape(-1)[0] if array.size == 1 else array


def _word(told: dict[str, Any] | None) -> str:
    found = _attribute(told) if told is not None and told["kind"] in ("texts", "bytes") else ""
    return found if isinstance(found, str) else ""

"""Sphinx configuration: `make docs` builds the site, `make gallery` the same with its figures drawn."""

import os
import sys
from pathlib import Path

import plotly

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE / "gallery")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "sharp-landscape"
author = copyright = "The sharp-landscape authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.githubpages",
    "sphinx_gallery.gen_gallery",
    "cyclopts.sphinx_ext",
    "docstrings",
    "gallery_figures",
    "notebook_pages",
]
exclude_patterns = ["_build", "gallery", "sg_execution_times.rst"]
default_role = "py:obj"
highlight_language = "none"

myst_heading_anchors = 4

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "sharp-landscape"
html_css_files = ["site.css"]
html_static_path = [
    "_static",
    str(Path(plotly.__file__).parent / "package_data" / "plotly.min.js"),
]
html_show_sphinx = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "_gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"small_network\.py",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("gallery_figures.scraper",),
    "capture_repr": (),
    "reset_modules": (),
    "abort_on_example_error": True,
    "write_computation_times": False,
    "download_all_examples": False,
    "min_reported_time": 1e9,
    "show_signature": False,
    "inspect_global_variables": False,
}

"""Sphinx's settings. The source folder is the checkout, so that links work on the site as in the repository.

Build with `make docs`. Nothing is fetched while it is built, and the pages need no network to be read.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from siren import __version__

project = "Siren"
author = "The Siren developers"
copyright = "The Siren developers, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "siren_docs"]
root_doc = "docs/index"
smartquotes = False  # --option stays --option
include_patterns = [
    "docs/**.md",
    "experiments/**.md",
    "agents/*/CARD.md",
    "deploy/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [
    ".*",
    "build",
    "dist",
    "runs",
    "siren",
    "tests",
    "workloads",
    "**/results/**",
    "**/node_modules",
]

# GitHub shows ```math as a formula too. No dollarmath: here a dollar is money.
myst_enable_extensions = ["deflist"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
# Generated pages may skip a level of headings; a word in a docstring may be the name of several things.
suppress_warnings = ["myst.header", "ref.python"]

nitpicky = True
# Without the network there is nothing to link other projects' types to.
nitpick_ignore_regex = [("py:.*", r"(?!siren\.).*")]

default_role = "code"  # docstrings write names between single backticks
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
toc_object_entries = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has them
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"Siren {__version__}"
html_static_path = ["static"]
html_css_files = ["siren.css"]
templates_path = ["templates"]
html_additional_pages = {"index": "start.html"}
html_copy_source = False
html_show_sphinx = False

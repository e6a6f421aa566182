"""Sphinx settings. `make docs` builds offline, warnings are errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "flowgraph"
author = "The flowgraph developers"
extensions = ["myst_parser", "flowgraph.viz.sphinx", "functions", "result"]
html_theme = "furo"
exclude_patterns = ["_build", "_ext"]

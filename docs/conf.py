"""Sphinx settings. `make docs` builds offline, warnings are errors."""

project = "flowgraph"
author = "The flowgraph developers"
extensions = ["myst_parser"]
html_theme = "furo"
exclude_patterns = ["_build"]

"""Measurements: how fast flowgraph is, and beside what. See README.md in this folder."""

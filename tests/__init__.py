"""Tests, read like the specification: one behaviour a test, the name a sentence."""

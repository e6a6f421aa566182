"""What every test run shares."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Time limits per example only measure how busy the machine is; the same examples in every run, so a red test
# stays red.
settings.register_profile(
    "flowgraph", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("flowgraph")

"""What the markers of tests say."""

from __future__ import annotations

import pytest


def needs_ray(test: pytest.Item) -> bool:
    """Whether the test is marked for Ray, in the shared session or in clusters of its own."""
    return any(test.get_closest_marker(name) is not None for name in ("ray", "cluster"))

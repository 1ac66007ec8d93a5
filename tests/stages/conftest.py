"""Tests of stages work in folders of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's default file belongs to the working folder: give each test its own."""
    monkeypatch.chdir(tmp_path)

"""Passwords in addresses never leave the process."""

from __future__ import annotations

import pytest

from ldsaug_ray.common.secrets import without_password, without_passwords


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:secret@host:5000/x", "https://host:5000/x"),
        ("s3://key:secret@bucket/a@b.png", "s3://bucket/a@b.png"),
        (
            "cannot reach postgresql+psycopg2://u:p@db/mlflow, nor s3://k@b",
            "cannot reach postgresql+psycopg2://db/mlflow, nor s3://b",
        ),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("mail me@example.org", "mail me@example.org"),
        ("", ""),
    ],
)
def test_user_and_password_are_cut_out_of_addresses(text, clean):
    assert without_password(text) == clean


def test_trees_are_cleaned_leaf_by_leaf():
    tree = {"run_dir": "s3://k:s@b/r", "score": {"alphas": (0.1, 0.2)}, "names": ["http://u:p@h"], "seed": 3}
    assert without_passwords(tree) == {
        "run_dir": "s3://b/r",
        "score": {"alphas": [0.1, 0.2]},
        "names": ["http://h"],
        "seed": 3,
    }

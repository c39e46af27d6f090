"""A run's own record of its settings: what it may write over."""

import json
from pathlib import Path

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.scripts.train.run_settings import keep_settings, require_own_folder
from stableanimator_jax.training.config import DataConfig, TrainConfig


def test_a_run_begins_only_where_nothing_of_others_is_lost(tmp_path: Path):
    require_own_folder(tmp_path / "new")
    require_own_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(
        InputError, match=r"will not replace .*metrics.jsonl, which no run of stableanimator train left there"
    ):
        require_own_folder(tmp_path)
    for other in ({"format": "stableanimator-jax", "config": {}}, [], "{"):
        (tmp_path / "config.json").write_text(other if isinstance(other, str) else json.dumps(other))
        with pytest.raises(
            InputError, match=r"will not replace .*config.json, which no run of stableanimator train left there"
        ):
            require_own_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "metrics.jsonl").rename(tmp_path / "data.json")
    with pytest.raises(
        InputError, match=r"will not replace .*data.json, which no run of stableanimator train left there"
    ):
        require_own_folder(tmp_path)


def test_a_run_that_ended_before_it_saved_anything_begins_anew(tmp_path: Path):
    keep_settings(TrainConfig(data=DataConfig(dataset=tmp_path / "data"), output=tmp_path), "0123")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    require_own_folder(tmp_path)
    # Also one of an older version, which noted the weights by another name.
    (tmp_path / "config.json").write_text(json.dumps({"settings": {}, "frozen_weights": "ab", "versions": {}}))
    require_own_folder(tmp_path)

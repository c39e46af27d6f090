"""A run's own record of its settings: what it may write over."""

import json
from pathlib import Path

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.training.settings import require_own_folder


def test_a_run_begins_only_where_nothing_of_others_is_lost(tmp_path: Path):
    require_own_folder(tmp_path / "new")
    require_own_folder(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"will not replace .*metrics.jsonl, which no run of train.py left there"):
        require_own_folder(tmp_path)
    for other in ({"format": "stableanimator-jax", "config": {}}, [], "{"):
        (tmp_path / "config.json").write_text(other if isinstance(other, str) else json.dumps(other))
        with pytest.raises(InputError, match=r"will not replace .*config.json, which no run of train.py left there"):
            require_own_folder(tmp_path)
    # A run that ended before it saved anything begins anew.
    (tmp_path / "config.json").write_text(json.dumps({"settings": {}, "frozen_weights": "ab", "versions": {}}))
    require_own_folder(tmp_path)

"""Whole state dicts by a rule table at once; the package streams them, one tensor after another."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stableanimator_jax.weights.rules import Table, flatten, plan_export, plan_import, stream, unflatten


def convert(table: Table, state_dict: Mapping[str, Any], abstract: Mapping[Any, Any]) -> dict[Any, Any]:
    """A PyTorch state dict as this project's parameters, in the nesting and the dtypes of `abstract`."""
    plan = plan_import(table, {key: np.shape(array) for key, array in state_dict.items()}, abstract)
    return unflatten(dict(stream(table, plan, state_dict)))


def export(table: Table, params: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The inverse of `convert`: each array in its own dtype, C-contiguous."""
    leaves = flatten(params)
    return {
        a.key: np.array(a.transform.inverse(np.asarray(leaves[a.path])), order="C") for a in plan_export(table, params)
    }

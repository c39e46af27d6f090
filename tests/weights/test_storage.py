"""What is kept from the user of Orbax's and TensorStore's ways to fail."""

import asyncio
import gc
import logging

import pytest

from stableanimator_jax.weights.storage import orbax_silenced


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError('OUT_OF_RANGE: Error writing "a/0" in OCDBT database at local file "c/": Failed writing'), False),
        (ValueError("of somebody else"), True),
        (RuntimeError("OCDBT database"), True),
    ],
)
def test_writes_that_nobody_waited_for_are_not_told_even_afterwards(error, told, caplog):
    with orbax_silenced():
        loop = asyncio.new_event_loop()
        future = loop.create_future()
        future.set_exception(error)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        del future
        gc.collect()
        loop.close()
    assert ("never retrieved" in caplog.text) == told

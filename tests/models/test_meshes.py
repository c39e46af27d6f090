"""The models give one device's results and gradients on every mesh, and send no more than they have to."""

import pytest

from tests.virtual_devices import run_on_virtual_devices


@pytest.mark.long
def test_every_layer_with_parameters_rows_and_frames_spread():
    run_on_virtual_devices(
        8,
        """
        from tests.models.mesh_cases import Level, compare, level_batch
        compare(Level, level_batch(), [(1, 8, 1), (2, 2, 2)])
        """,
    )


@pytest.mark.slow
@pytest.mark.parametrize("splits", [[(8, 1, 1), (1, 8, 1), (1, 1, 8)], [(2, 2, 2), (4, 1, 2), (1, 2, 4)]])
def test_the_unet_on_every_split_in_less_memory(splits):
    run_on_virtual_devices(
        8,
        f"""
        from tests.models.mesh_cases import SmallUNet, compare, unet_batch
        compare(lambda: SmallUNet(remat=True), unet_batch(), {splits}, alone=lambda: SmallUNet(remat=False))
        """,
    )

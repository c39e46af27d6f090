"""Many devices: what each of them does is planned, and the video is that of one."""

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.runtime import choose_devices
from stableanimator_jax.sampling.config import SamplingConfig
from stableanimator_jax.sampling.devices import plan_devices
from tests.virtual_devices import run_on_virtual_devices

GUIDED = SamplingConfig()
UNGUIDED = SamplingConfig(guidance_min=1, guidance_max=1)


@pytest.mark.parametrize(
    ("available", "frames", "sampling", "rows", "shared"),
    [
        (1, 16, GUIDED, 1, 1),
        (2, 16, GUIDED, 2, 1),  # the branches of the one window
        (8, 16, GUIDED, 2, 4),  # and its frames
        (8, 1, UNGUIDED, 1, 8),
        (3, 16, GUIDED, 2, 1),  # a third one would have nothing to do
        (2, 16, UNGUIDED, 1, 2),
        (8, 28, GUIDED, 4, 2),  # two windows
        (8, 352, GUIDED, 8, 1),  # 29 windows: 58 rows in 8 calls
        (8, 100, UNGUIDED, 8, 1),  # 8 windows
        (4, 100, UNGUIDED, 4, 1),
        (64, 16, GUIDED, 2, 16),
    ],
)
def test_rows_are_spread_first_and_then_the_frames_of_a_row(available, frames, sampling, rows, shared):
    plan = plan_devices(available, frames, sampling)
    assert (plan.rows, plan.frames) == (rows, shared)
    assert 0.6 * plan.devices < plan.speedup <= plan.devices


def test_29_windows_on_8_devices_are_within_a_tenth_of_an_eighth():
    plan = plan_devices(8, 352, GUIDED)
    assert plan.speedup == pytest.approx(58 / 8)
    assert "8 devices: 8 rows at once; a step 7.2 times as fast as on one (predicted)" in str(plan)
    assert "2 rows at once, each row's frames over 4; a step 7.1 times" in str(plan_devices(8, 16, GUIDED))


def test_how_many_share_a_rows_frames_can_be_set():
    plan = plan_devices(8, 352, GUIDED, frame_devices=2)
    assert (plan.rows, plan.frames) == (4, 2)
    for wrong in (0, 3, 16):
        with pytest.raises(InputError, match=f"frame-devices must divide the window of 16 .* 8 devices, got {wrong}"):
            plan_devices(8, 16, GUIDED, frame_devices=wrong)


def test_of_several_processes_no_device_is_left_out():
    for frames, sampling, rows, shared in ((1, UNGUIDED, 1, 8), (16, GUIDED, 2, 4), (352, GUIDED, 8, 1)):
        plan = plan_devices(8, frames, sampling, all_of_them=True)
        assert (plan.rows, plan.frames) == (rows, shared)
    odd = plan_devices(6, 16, GUIDED, all_of_them=True)
    assert odd.devices == 6
    with pytest.raises(InputError, match="make frame-devices a divisor of 6"):
        plan_devices(6, 16, GUIDED, frame_devices=4, all_of_them=True)


@pytest.mark.parametrize("wrong", [0, 2, -1, "many", 1.5, None, []])
@pytest.mark.mistyped
def test_devices_that_are_not_there(wrong):
    with pytest.raises(InputError, match="devices must be all, or from 1 to the 1 that JAX finds here, got"):
        choose_devices(wrong)
    assert choose_devices("all") == choose_devices(1)


TOGETHER = """
    import sys
    from pathlib import Path

    import jax, numpy as np
    from stableanimator_jax import Animator
    from stableanimator_jax.data.face_track import FaceTrack
    from stableanimator_jax.sampling.config import HJBConfig, SamplingConfig
    from stableanimator_jax.sampling.face_control import FaceOptimisation
    from stableanimator_jax.sampling.pipeline import Animator
    from tests.training.mini_model import save_mini_model

    assert len(jax.devices()) == 8
    save_mini_model(Path("FOLDER"))
    one, all_of_them = (Animator.from_pretrained("FOLDER", arcface=True, devices=n) for n in (1, "all"))
    third = Animator.from_pretrained("FOLDER", devices=jax.devices()[2:3])
    assert {device for leaf in jax.tree.leaves(third.unet) for device in leaf.devices()} == {jax.devices()[2]}

    def video(animator, frames, guided, optimised):
        poses = np.random.default_rng(1).integers(0, 256, (frames, 64, 64, 3), np.uint8)
        scale = 3.0 if guided else 1.0
        sampling = SamplingConfig(steps=2, window=4, overlap=1, guidance_min=scale, guidance_max=scale, decode_chunk=2)
        faces = FaceTrack(np.tile(np.array([8, 8, 55, 55], np.float32), (frames, 1)), None, np.arange(frames) != 2)
        hjb = FaceOptimisation(HJBConfig(iterations=2, chunk=2), np.ones(512, np.float32), faces) if optimised else None
        latents, said, reports = [], [], []
        made = animator.animate(
            poses[0], poses, id_embedding=np.ones(512, np.float32), sampling=sampling, hjb=hjb,
            on_step=lambda step, after: latents.append(np.asarray(after)),
            on_optimised=reports.append, on_decode=lambda *done: said.append(done),
        )
        return latents[-1], made, said, reports

    for frames, guided, optimised, devices in CASES:
        scale = 3.0 if guided else 1.0
        plan = all_of_them.plan(frames, SamplingConfig(window=4, overlap=1, guidance_min=scale, guidance_max=scale))
        assert plan.devices == devices, plan
        expected, frames_of_one, told, reported = video(one, frames, guided, optimised)
        latents, made, said, reports = video(all_of_them, frames, guided, optimised)
        spread = np.ptp(expected)
        # Adam moves by the sign of a gradient, which rounding decides where the gradient is nothing.
        close = np.abs(latents - expected) < 1e-4 * spread
        assert close.mean() > (0.95 if optimised else 1 - 1e-9), (frames, guided, optimised, close.mean())
        assert np.abs(made.astype(int) - frames_of_one).mean() < (0.5 if optimised else 0.02)  # levels
        assert said[-1] == told[-1] == (frames, frames)
        assert [report.faces for report in reports] == [report.faces for report in reported]
        for a, b in zip(reports, reported):
            assert abs(a.similarity_before - b.similarity_before) < 1e-5
            assert abs(a.similarity_after - b.similarity_after) < 1e-4
"""


def together(folder, cases) -> None:
    run_on_virtual_devices(8, TOGETHER.replace("FOLDER", str(folder)).replace("CASES", repr(cases)))


@pytest.mark.slow
def test_a_chunk_on_each_device_is_refined_as_on_one():
    """Eleven frames, the last of them alone, two without a face: the same program on the same chunks."""
    run_on_virtual_devices(
        4,
        """
        import jax, numpy as np
        from stableanimator_jax.parallel import make_mesh, replicated
        from tests.sampling.face_case import boxes, identity, small_models, video
        from stableanimator_jax.sampling.hjb import refine

        mesh, models = make_mesh(), small_models()
        given = video(11), boxes(11, faceless=(2, 3, 7)), identity(), 0.1
        alone = refine(*models, *given, iterations=2, chunk=2)
        models = jax.device_put(models, replicated(mesh))
        told = []
        apart = refine(*models, *given, iterations=2, chunk=2, mesh=mesh, on_chunk=lambda *done: told.append(done))
        assert told == [(10, 11), (11, 11)]
        close = np.abs(np.asarray(apart.latents) - np.asarray(alone.latents)) < 1e-5
        assert close.mean() > 0.999, close.mean()  # see `TOGETHER` on signs
        np.testing.assert_allclose(apart.losses, alone.losses, rtol=1e-5)
        np.testing.assert_allclose(apart.similarity_after, alone.similarity_after, rtol=1e-5)
        """,
    )


@pytest.mark.slow
def test_eight_devices_make_the_video_of_one(tmp_path):
    """Two windows in two branches, two devices to a row; chunks of a face's optimisation and of decoding."""
    together(tmp_path / "mini", [(7, True, False, 8), (7, True, True, 8)])


@pytest.mark.slow
def test_eight_devices_make_any_video_of_one(tmp_path):
    lengths = [(1, 8, 4), (4, 8, 4), (16, 8, 8), (17, 8, 8), (100, 8, 8)]
    cases = [
        (frames, guided, optimised, guided_devices if guided else unguided_devices)
        for frames, guided_devices, unguided_devices in lengths
        for guided in (True, False)
        for optimised in (True, False)
    ]
    together(tmp_path / "mini", cases)

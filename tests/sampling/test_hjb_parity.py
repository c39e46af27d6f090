"""The face optimisation against a plain torch loop over torch modules: every frame's graph at once, one Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.config import ArcFaceConfig, VAEConfig
from stableanimator_jax.data.face_track import FaceTrack
from stableanimator_jax.models.arcface import ArcFace
from stableanimator_jax.models.functional import Blueprint, Model
from stableanimator_jax.sampling.hjb import refine
from stableanimator_jax.weights.tables import ARCFACE
from tests.golden_models import FLOAT32, channels_last
from tests.weights.state_dicts import convert

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytestmark = pytest.mark.parity
torch.set_num_threads(1)  # its threads spin while they wait: seconds a call where others use the cores too

# They need torch themselves.
from tests.models.test_arcface_parity import randomise, torch_iresnet  # noqa: E402
from tests.models.test_vae_parity import converted, torch_vae  # noqa: E402

VAE_CONFIG = VAEConfig(block_out_channels=(32, 64), layers_per_block=1)
ARCFACE_CONFIG = ArcFaceConfig(layers=(1, 1, 1, 1), widths=(8, 12, 16, 24), embedding_dim=40)
CELLS = 16
# As the detector gives them: of any size, moving, partly outside of the frame. (left, top, right, bottom), inclusive.
BOXES = np.array([[6, 4, 20, 21], [7, -3, 21, 14], [18, 6, 40, 23], [0, 0, 31, 31], [9, 9, 11, 12]])


@pytest.fixture(scope="module")
def networks():
    """Torch modules, and the same as ours."""
    torch.manual_seed(0)
    vae, arcface = torch_vae(VAE_CONFIG), torch_iresnet(ARCFACE_CONFIG)
    randomise(arcface)
    arcface.eval()
    blueprint = Blueprint(ArcFace, ARCFACE_CONFIG, FLOAT32)
    state_dict = {key: value.detach().numpy() for key, value in arcface.state_dict().items()}
    params = convert(ARCFACE, state_dict, blueprint.abstract_params())
    return (vae, arcface), (converted(vae, VAE_CONFIG), Model(jax.tree.map(jnp.asarray, params), blueprint))


def optimise_in_torch(vae, arcface, latents, boxes, reference, learning_rate, iterations, chunk):
    latents = latents.clone().requires_grad_()
    adam = torch.optim.Adam([latents], lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for _ in range(iterations):
        parts = [vae.decode(x, num_frames=len(x)).sample for x in (latents / 0.18215).split(chunk)]
        frames = (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
        crops = [
            torch.nn.functional.interpolate(
                frame[None, :, max(top, 0) : bottom + 1, max(left, 0) : right + 1], (112, 112), mode="bilinear"
            )
            for frame, (left, top, right, bottom) in zip(frames, boxes, strict=True)
        ]
        similarity = torch.nn.functional.cosine_similarity(arcface(torch.cat(crops) * 2 - 1), reference[None])
        loss = (1 - similarity).abs().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return channels_last(latents.detach().numpy()), losses


@pytest.mark.parametrize(("frames", "chunk"), [(2, 2), (4, 2), (5, 2), (3, 3), (5, 3), (3, 1)])
def test_refined_latents(networks, frames, chunk):
    published, ours = networks
    torch.manual_seed(10 * frames + chunk)
    latents = torch.randn(frames, 4, CELLS, CELLS)
    reference = torch.randn(ARCFACE_CONFIG.embedding_dim)
    expected, losses = optimise_in_torch(*published, latents, BOXES[:frames], reference, 0.05, 3, chunk)
    out = refine(
        *ours,
        jnp.asarray(channels_last(latents.numpy())),
        FaceTrack(BOXES[:frames].astype(np.float32), None, np.ones(frames, bool)),
        jnp.asarray(reference.numpy()),
        0.05,
        iterations=3,
        chunk=chunk,
    )
    error = np.abs(out.latents - expected).mean() / expected.std()
    print(f"{frames} frames by {chunk}: {error:.1e}; losses {losses}, off by {np.abs(out.losses - losses).max():.1e}")
    assert error < 1e-3
    np.testing.assert_allclose(out.losses, losses, rtol=1e-3)
    assert losses[-1] < losses[0]

"""Exported files in PyTorch's own loaders: strictly, and with our outputs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.models.conditioning import Conditioning
from stableanimator_jax.models.functional import Model
from stableanimator_jax.models.unet import UNet
from stableanimator_jax.models.vae import VAE
from stableanimator_jax.weights.checkpoint import save_checkpoint
from stableanimator_jax.weights.exporting import export_weights
from stableanimator_jax.weights.opening import open_checkpoint
from tests.golden_data import assert_close
from tests.golden_models import channels_last, reference_model

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

TINY = StableAnimatorConfig.tiny()
MODELS = ("unet", "vae", "image_encoder", "pose_net", "face_encoder")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration with the golden cases' weights, as PyTorch's files."""
    place = tmp_path_factory.mktemp("parity")
    save_checkpoint(place / "c", TINY, {model: reference_model(model, TINY).params for model in MODELS})
    export_weights(str(place / "c"), place / "out")
    return place / "out"


def load_strictly(loader: Any, folder: Path) -> Any:
    model, info = loader.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


def test_the_unet_in_diffusers(exported: Path):
    theirs = load_strictly(diffusers.UNetSpatioTemporalConditionModel, exported / "SVD/unet")
    ours = reference_model("unet")
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 3, 8, 16, 8), np.float32)
    image = rng.standard_normal((1, 1, TINY.unet.cross_attention_dim), np.float32)
    time_ids = np.array([[6, 127, 0.02]], np.float32)
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(latents), torch.tensor(0.7), torch.from_numpy(image), torch.from_numpy(time_ids)
        ).sample.numpy()

    def predict(model, sample, timestep, image, time_ids):
        unet: UNet = model.module()
        return unet(sample[..., :4], timestep, Conditioning(image, None, time_ids, sample[..., 4:]))

    # Without face tokens nothing of the ID adapter is used, which diffusers does not know.
    found = jax.jit(predict)(
        ours,
        jnp.asarray(channels_last(latents)),
        jnp.full((1,), 0.7, jnp.float32),
        jnp.asarray(image[:, 0]),
        jnp.asarray(time_ids),
    )
    assert_close(np.moveaxis(np.asarray(found), -1, -3), expected, 1e-4)


def assert_diffusers_decodes_alike(folder: Path, ours: Model[VAE]) -> None:
    theirs = load_strictly(diffusers.AutoencoderKLTemporalDecoder, folder)
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((3, ours.blueprint.config.latent_channels, 8, 6), np.float32)
    images = rng.uniform(-1, 1, (2, 3, 64, 48)).astype(np.float32)
    with torch.no_grad():
        decoded = theirs.decode(torch.from_numpy(latents), num_frames=3).sample.numpy()
        encoded = theirs.encode(torch.from_numpy(images)).latent_dist.mean.numpy()

    def both(model, z, images):
        vae: VAE = model.module()
        return vae.decode(z), vae.encode(images)[0]

    found = jax.jit(both)(ours, jnp.asarray(channels_last(latents))[None], jnp.asarray(channels_last(images)))
    assert_close(np.moveaxis(np.asarray(found[0][0]), -1, -3), decoded, 1e-4)
    assert_close(np.moveaxis(np.asarray(found[1]), -1, -3), encoded, 1e-4)


def test_the_vae_in_diffusers(exported: Path):
    assert_diffusers_decodes_alike(exported / "SVD/vae", reference_model("vae"))


def test_the_shipped_vae_of_fewer_groups_in_diffusers(tmp_path: Path):
    export_weights("embedded", tmp_path / "out")
    shipped = open_checkpoint("embedded")
    assert shipped.config.vae.norm_num_groups < 32
    assert_diffusers_decodes_alike(tmp_path / "out/SVD/vae", shipped.load("vae", blueprint(shipped.config, "vae")))
    pipeline = diffusers.StableVideoDiffusionPipeline.from_pretrained(tmp_path / "out/SVD")
    assert pipeline.vae.config.block_out_channels == [128, 128, 256, 512]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # torch and NumPy, in diffusers
def test_the_whole_pipeline_in_diffusers(exported: Path):
    pipeline = diffusers.StableVideoDiffusionPipeline.from_pretrained(exported / "SVD")
    assert pipeline.vae.config.scaling_factor == TINY.vae.scaling_factor
    pipeline.scheduler.set_timesteps(25)
    # SVD's published noise levels.
    assert float(pipeline.scheduler.sigmas[0]) == pytest.approx(700)
    assert float(pipeline.scheduler.sigmas[-2]) == pytest.approx(0.002, rel=1e-3)
    assert float(pipeline.scheduler.init_noise_sigma) == pytest.approx((700**2 + 1) ** 0.5)


def test_the_image_encoder_in_transformers(exported: Path):
    theirs = load_strictly(transformers.CLIPVisionModelWithProjection, exported / "SVD/image_encoder")
    ours = reference_model("image_encoder")
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(pixels)).image_embeds.numpy()
    found = jax.jit(lambda model, x: model.module()(x))(ours, jnp.asarray(channels_last(pixels)))
    assert_close(np.asarray(found), expected, 1e-4)


@pytest.mark.parametrize("model", ["unet", "pose_net", "face_encoder"])
def test_the_networks_are_plain_dictionaries_of_tensors(exported: Path, model: str):
    state_dict = torch.load(exported / f"Animation/{model}.pth", weights_only=True)
    parameters = blueprint(TINY, model).abstract_params()
    assert len(state_dict) == len(jax.tree.leaves(parameters))
    assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in state_dict.values())

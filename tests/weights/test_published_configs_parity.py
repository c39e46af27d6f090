"""Configurations as the libraries themselves write them, from small models of theirs."""

import dataclasses
import inspect

import pytest

from stableanimator_jax.config import ImageEncoderConfig, StableAnimatorConfig, UNetConfig, VAEConfig
from stableanimator_jax.weights import published_configs
from stableanimator_jax.weights.published_configs import read_published_config

pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.parity

TINY = StableAnimatorConfig.tiny()


def test_unet(tmp_path):
    fields = dataclasses.asdict(TINY.unet)
    del fields["id_injection"]
    diffusers.UNetSpatioTemporalConditionModel(**fields).save_config(tmp_path)
    assert read_published_config(tmp_path / "config.json", UNetConfig) == TINY.unet


def test_vae(tmp_path):
    fields = dataclasses.asdict(TINY.vae)
    del fields["norm_num_groups"]
    levels = ("DownEncoderBlock2D",) * 4
    diffusers.AutoencoderKLTemporalDecoder(**fields, down_block_types=levels).save_config(tmp_path)
    assert read_published_config(tmp_path / "config.json", VAEConfig) == TINY.vae


def test_image_encoder(tmp_path):
    config = transformers.CLIPVisionConfig(**dataclasses.asdict(TINY.image_encoder))
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    assert read_published_config(tmp_path / "config.json", ImageEncoderConfig) == TINY.image_encoder


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("UNetSpatioTemporalConditionModel", published_configs._UNET_FIELDS),
        ("AutoencoderKLTemporalDecoder", published_configs._VAE_FIELDS),
    ],
)
def test_fields_and_defaults_are_diffusers_own(name, fields):
    signature = inspect.signature(getattr(diffusers, name).__init__)
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
    assert fields == {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}

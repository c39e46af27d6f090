"""The training objective on torch modules: diffusers' UNet with the ID adapter, PoseNet and the Face Encoder."""

import math
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from stableanimator_jax.config import StableAnimatorConfig
from stableanimator_jax.models.catalogue import blueprint
from stableanimator_jax.weights.rules import plan_export
from stableanimator_jax.weights.tables import tables
from tests.golden.reference_weights import reference_array
from tests.models.test_face_encoder_parity import torch_face_encoder
from tests.models.test_pose_net_parity import torch_pose_net
from tests.models.test_unet_parity import torch_unet

MODELS = ("unet", "pose_net", "face_encoder")
Tensors = dict[str, torch.Tensor]


class IdProcessor(torch.nn.Module):
    """Cross-attention to the image token, and to the face tokens after it, with the latter's spread aligned."""

    def __init__(self, context: int, channels: int):
        super().__init__()
        self.id_to_k = torch.nn.Linear(context, channels, bias=False)
        self.id_to_v = torch.nn.Linear(context, channels, bias=False)

    def forward(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        assert encoder_hidden_states is not None
        image, faces = encoder_hidden_states[:, :1], encoder_hidden_states[:, 1:]

        def heads(x):
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        def attend(k, v):
            z = torch.nn.functional.scaled_dot_product_attention(heads(q), heads(k), heads(v))
            return z.transpose(1, 2).flatten(2)

        q = attn.to_q(hidden_states)
        z_image = attend(attn.to_k(image), attn.to_v(image))
        z_face = attend(self.id_to_k(faces), self.id_to_v(faces))
        (mean_image, std_image), (mean_face, std_face) = (
            (z.mean((1, 2), keepdim=True), z.std((1, 2), keepdim=True)) for z in (z_image, z_face)
        )
        aligned = (z_face - mean_face) * std_image / (std_face + 1e-5) + mean_image
        return attn.to_out[0](z_image + aligned)


class ImageTokenOnly(AttnProcessor2_0):
    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        assert encoder_hidden_states is not None
        return super().__call__(attn, hidden_states, encoder_hidden_states[:, :1])


class Sinusoids(torch.nn.Module):
    """diffusers' `Timesteps`, which is always float32, in float64."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        half = self.dim // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
        angles = t[:, None].double() * frequencies
        return torch.cat([angles.cos(), angles.sin()], -1)


class TorchObjective:
    """The three models with the golden cases' weights, in `dtype`."""

    def __init__(self, config: StableAnimatorConfig, dtype: torch.dtype):
        self.config, self.dtype = config, dtype
        self.unet = torch_unet(config.unet)
        for name, module in self.unet.named_modules():
            if name.endswith(".attn2"):
                temporal = ".temporal_transformer_blocks." in name
                context, channels = config.unet.cross_attention_dim, module.to_q.out_features
                module.set_processor(ImageTokenOnly() if temporal else IdProcessor(context, channels))
        self.pose_net = torch_pose_net(config.pose_net.out_channels)
        for name in ("unet", "pose_net"):
            module = getattr(self, name)
            keys = module.state_dict()
            weights = {key: torch.from_numpy(reference_array(f"{name}.{key}", v.shape)) for key, v in keys.items()}
            module.load_state_dict(weights)
            module.to(dtype)
        abstract = blueprint(config, "face_encoder").abstract_params()
        plan = plan_export(tables(config)["face_encoder"], abstract)
        self.face_encoder = {
            a.key: torch.from_numpy(reference_array(f"face_encoder.{a.key}", a.source_shape)).to(dtype).requires_grad_()
            for a in plan
        }
        if dtype == torch.float64:
            self._sinusoids_in_float64()

    def _sinusoids_in_float64(self) -> None:
        for module in list(self.unet.modules()):
            for name in ("time_proj", "add_time_proj"):
                if hasattr(module, name):
                    setattr(module, name, Sinusoids(getattr(module, name).num_channels))

    def parameters(self, model: str) -> Tensors:
        return self.face_encoder if model == "face_encoder" else dict(getattr(self, model).named_parameters())

    def __call__(self, case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, dict[str, Tensors]]:
        """Prediction, loss and every parameter's gradient for a case of the golden one's names and shapes."""
        x = {key: torch.as_tensor(value).to(self.dtype) for key, value in case.items() if "grad/" not in key}
        sigma = x["sigmas"].reshape(-1, 1, 1, 1, 1)
        p, u = float(case["dropout_p"]), x["dropout_u"]
        keep_image, keep_condition = (u >= 2 * p).to(self.dtype), ((u < p) | (u >= 3 * p)).to(self.dtype)
        noisy = x["latents"] + sigma * x["noise"]
        condition = x["condition_latents"] * keep_condition.reshape(-1, 1, 1, 1)
        condition = condition[:, None].expand(noisy.shape)
        image = x["image_embedding"]
        tokens = torch_face_encoder(self.face_encoder, self.config.face_encoder, x["id_embedding"], image[:, 0])
        context = torch.cat([image * keep_image.reshape(-1, 1, 1), tokens], 1)
        features = self.pose_net(x["pose"].flatten(0, 1))
        hook = self.unet.conv_in.register_forward_hook(lambda module, inputs, output: output + features)
        time_ids = torch.tensor([[6, 127, 0.02]], dtype=self.dtype).repeat(len(u), 1)
        prediction = self.unet(
            torch.cat([noisy / (sigma**2 + 1) ** 0.5, condition], 2), 0.25 * x["sigmas"].log(), context, time_ids
        ).sample
        hook.remove()
        denoised = prediction * (-sigma / (sigma**2 + 1) ** 0.5) + noisy / (sigma**2 + 1)
        weight = (1 + sigma**2) * sigma**-2
        height, width = noisy.shape[-2:]
        mask = torch.nn.functional.interpolate(x["face_mask"].flatten(0, 1), (height, width)).reshape(
            *noisy.shape[:2], 1, height, width
        )
        loss = (weight * (denoised - x["latents"]) ** 2 * (1 + mask)).mean()
        names = [(model, key) for model in MODELS for key in self.parameters(model)]
        gradients = torch.autograd.grad(
            loss, [self.parameters(model)[key] for model, key in names], allow_unused=True, materialize_grads=True
        )
        out: dict[str, Tensors] = {model: {} for model in MODELS}
        for (model, key), gradient in zip(names, gradients, strict=True):
            out[model][key] = gradient
        return prediction.detach(), loss.detach(), out

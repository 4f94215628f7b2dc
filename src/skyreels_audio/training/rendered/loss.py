"""Flow matching on a region (paper, equations 1 and 2 and the facial mask gate)."""

import torch
from torch import Tensor

LARGEST_WEIGHT = 4.0
"""The weight 1/sigma² of a squared clean-latent error would drown high noise, where lips are decided."""


def sample_sigmas(batch: int, shift: float, share_of_one: float, generator: torch.Generator) -> Tensor:
    """Noise levels [B]: uniform, shifted towards high noise (sigma' = s·u / (1 + (s-1)·u)), some at exactly 1."""
    uniform = torch.rand(batch, generator=generator)
    shifted = shift * uniform / (1 + (shift - 1) * uniform)
    return torch.where(torch.rand(batch, generator=generator) < share_of_one, torch.ones(()), shifted)


def interpolate(clean_BCTHW: Tensor, noise_BCTHW: Tensor, sigmas_B: Tensor) -> Tensor:
    """z_sigma = (1 - sigma) · clean + sigma · noise: the straight path of flow matching."""
    sigmas = sigmas_B.view(-1, 1, 1, 1, 1)
    return (1 - sigmas) * clean_BCTHW + sigmas * noise_BCTHW


def flow_loss(
    predicted_BCTHW: Tensor,
    clean_BCTHW: Tensor,
    sigmas_B: Tensor,
    weight_B1THW: Tensor,
    weight_C: Tensor | float = 1.0,
) -> Tensor:
    """Eq. 1, ‖v - u‖², written for a network that predicts the clean latent: v - u = (predicted - clean) / sigma.

    Every sample is averaged over its own weighted region, so a small mouth counts as much as a large one.
    """
    per_sigma = sigmas_B.float().square().reciprocal().clamp(max=LARGEST_WEIGHT)
    weight_C111 = torch.as_tensor(weight_C).view(-1, 1, 1, 1)
    error_BCTHW = (predicted_BCTHW.float() - clean_BCTHW.float()).square() * weight_C111
    error_B1THW = error_BCTHW.mean(1, keepdim=True)
    region = weight_B1THW.float()
    per_sample = (region * error_B1THW).sum((1, 2, 3, 4)) / region.sum((1, 2, 3, 4)).clamp(min=1e-6)
    return (per_sigma * per_sample).mean()


def loss_region(
    lips_B1THW: Tensor, unknown_B1THW: Tensor, gated_B: Tensor, lip_weight: float, known_weight: float = 0.05
) -> Tensor:
    """Weights of the loss: what is to be invented, more on the lips (eq. 2); the lips alone where gated (L_face)."""
    lips = lips_B1THW * unknown_B1THW
    everywhere = known_weight + (1 - known_weight) * unknown_B1THW + lip_weight * lips
    visible = lips.sum((1, 2, 3, 4)) > 0  # a gate on a clip without lips would leave nothing to learn from
    gate = (gated_B & visible).view(-1, 1, 1, 1, 1)
    return torch.where(gate, lips, everywhere)

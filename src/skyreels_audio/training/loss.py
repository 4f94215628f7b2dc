"""Flow matching as the paper prints it (equations 1 and 2, and the gate of L_face), and what a recipe may choose else.

z_t = (1 - t) · clean + t · noise, and the network's velocity v is to be u = noise - clean.
"""

import torch
from torch import Tensor

from skyreels_audio.training.recipe import Loss


def times(uniform_B: Tensor, one_B: Tensor, shift: float, share_of_one: float) -> Tensor:
    """Noise levels t [B] from uniform numbers in [0, 1]: shifted towards noise, a share of them at exactly 1."""
    shifted = shift * uniform_B / (1 + (shift - 1) * uniform_B)
    return torch.where(one_B < share_of_one, torch.ones(()), shifted)


def interpolate(clean_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
    """z_t: the straight path of flow matching."""
    t = t_B.view(-1, 1, 1, 1, 1)
    return (1 - t) * clean_BCTHW + t * noise_BCTHW


def region_weights(known_B4THW: Tensor, lips_BTHW: Tensor | None, gated_B: Tensor, options: Loss) -> Tensor:
    """What an error weighs at each latent [B, 1, T, H, W].

    Eq. 2: w1 where pixels are given, w2 where they are to be invented (V_m: the share of a latent's four frames that is
    given). L_face: where ``gated_B``, times M_lip, if lips are seen at all.
    """
    known_B1THW = known_B4THW.float().mean(1, keepdim=True)
    weights = options.known_weight * known_B1THW + options.unknown_weight * (1 - known_B1THW)
    if lips_BTHW is None:
        return weights
    lips_B1THW = lips_BTHW.float().unsqueeze(1)
    gate = (gated_B.to(lips_B1THW.device) & (lips_B1THW.sum((1, 2, 3, 4)) > 0)).view(-1, 1, 1, 1, 1)
    return torch.where(gate, lips_B1THW * weights, weights)


def motion_weights(clean_BCTHW: Tensor, strength: float) -> Tensor:
    """What an error weighs where latents differ from those before them, 1 on average over a clip [B, 1, T, H, W].

    (1 + strength · m) / (1 + strength), m the difference over its mean; the first latent has that of the second.
    """
    moved = clean_BCTHW.float().diff(dim=2).abs().mean(1, keepdim=True)
    moved = torch.cat([moved[:, :, :1], moved], 2)
    moved = moved / moved.mean((1, 2, 3, 4), keepdim=True).clamp(min=1e-6)
    return (1 + strength * moved) / (1 + strength)


def flow_loss(
    velocity_BCTHW: Tensor, clean_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor, weights_B1THW: Tensor, options: Loss
) -> Tensor:
    """Eq. 1, ‖v - u‖², weighted: one loss per sample [B]."""
    error_BCTHW = (velocity_BCTHW.float() - (noise_BCTHW - clean_BCTHW).float()).square()
    loss_B = _weighted(error_BCTHW, weights_B1THW, options.mean)
    if options.sigma_weight == "capped":
        loss_B = loss_B * (4 * t_B.square()).clamp(max=1)
    return loss_B


def clean_loss(
    predicted_BCTHW: Tensor, clean_BCTHW: Tensor, t_B: Tensor, weights_B1THW: Tensor, weight_C: Tensor
) -> Tensor:
    """`flow_loss`, capped and by region, of a network that predicts clean latents: v - u = (predicted - clean) / t.

    ``weight_C``: what an error in each channel counts. Returns one loss per sample [B].
    """
    error_BCTHW = (predicted_BCTHW.float() - clean_BCTHW.float()).square() * weight_C.view(-1, 1, 1, 1)
    return _weighted(error_BCTHW, weights_B1THW, "region") * t_B.square().reciprocal().clamp(max=4)


def _weighted(error_BCTHW: Tensor, weights_B1THW: Tensor, mean: str) -> Tensor:
    """The mean of weighted errors [B]: over everything, or over the weights' sum."""
    loss_B = (error_BCTHW.mean(1, keepdim=True) * weights_B1THW).mean((1, 2, 3, 4))
    return loss_B / weights_B1THW.mean((1, 2, 3, 4)).clamp(min=1e-6) if mean == "region" else loss_B

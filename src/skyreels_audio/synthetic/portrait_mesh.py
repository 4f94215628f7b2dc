"""The mesh of ``models.portrait_geometry``, fitted to the people that the renderer draws.

Shape letters: R portrait, P shaping channel, V vertex, F triangle, S style.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skyreels_audio.models.portrait_code import CHOICES, SHAPING, part
from skyreels_audio.models.portrait_geometry import FINEST, TRAITS
from skyreels_audio.synthetic.person import beard_field, hair_field
from skyreels_audio.synthetic.portraits import Portrait, clouds, sample_portrait, stand
from skyreels_audio.synthetic.rig import Material, Rig

PORTRAITS = 240
CENTRE, SCALE = np.array([0.0, -0.05, 0.72]), 0.1  # of the places on the template that maps show
DENSITY = 192.0  # points per picture height: more than the maps have pixels
MARGIN = 0.06  # of the picture, past which a vertex is not kept
UNDRAWN = (Material.LASHES, Material.TEETH, Material.TONGUE)


def fit_mesh(seeds: range = range(1, 2 * PORTRAITS, 2)) -> dict[str, Tensor]:
    """Buffers of ``PortraitGeometry``: places by least squares, which errors of the linear rule leave sub-pixel."""
    rig, portraits = Rig.load(), [sample_portrait(seed) for seed in seeds]
    places_RV3 = np.stack([_places(portrait) for portrait in portraits])
    places_RV3[..., 2] -= places_RV3[..., 2].mean()  # only nearer and farther matter, and half precision is enough
    code_RC = torch.from_numpy(np.stack([portrait.code_C for portrait in portraits]))
    shaping_RP = torch.cat([torch.ones(len(portraits), 1), *(part(code_RC, name) for name in SHAPING)], 1).numpy()
    chosen_F = _drawn(rig, places_RV3.mean(0))
    used_V, triangles_F3 = np.unique(rig.triangles_F3[chosen_F], return_inverse=True)
    triangles_F3 = triangles_F3.reshape(-1, 3)
    target = places_RV3[:, used_V].reshape(len(portraits), -1)
    ridge = 1e-3 * len(portraits) * np.eye(shaping_RP.shape[1])
    ridge[0, 0] = 0
    places_PV3 = np.linalg.solve(shaping_RP.T @ shaping_RP + ridge, shaping_RP.T @ target).reshape(-1, len(used_V), 3)
    corners = places_RV3.mean(0)[used_V][triangles_F3][..., :2]
    sides_F = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1).max(1)
    tables = _tables(rig, portraits[0])
    buffers = {
        "places_PV3": places_PV3,
        "traits_VK": _traits(rig)[used_V],
        "clouds_HW": clouds(),
        **{name: table[:, used_V] for name, table in tables.items()},
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in buffers.items()}
    tensors["triangles_F3"] = torch.from_numpy(triangles_F3.astype(np.int16))
    tensors["level_F"] = torch.from_numpy(np.clip(np.ceil(sides_F * DENSITY), 2, FINEST).astype(np.uint8))
    return tensors


def _places(portrait: Portrait) -> np.ndarray:
    """Vertices [V, 3]: x, y in fractions of the picture, distance in metres."""
    subject = stand(portrait)
    clip_V4 = np.c_[subject.vertices_V3, np.ones(len(subject.vertices_V3))] @ subject.view_projection.T
    x, y = (clip_V4[:, :2] / clip_V4[:, 3:]).T
    return np.stack([0.5 + 0.5 * x, 0.5 - 0.5 * y, clip_V4[:, 3]], -1)


def _drawn(rig: Rig, places_V3: np.ndarray) -> np.ndarray:
    """The triangles [F] that a portrait may show: those that face the camera, and long hair from both sides."""
    a, b, c = (places_V3[corner, :2] for corner in rig.triangles_F3.T)
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    facing = ux * vy - uy * vx < 0  # y points down
    inside_V = (np.abs(places_V3[:, :2] - 0.5) < 0.5 + MARGIN).min(1)
    inside = inside_V[rig.triangles_F3].any(1)
    hair = rig.material_F == Material.LONG_HAIR
    return inside & (facing | hair) & ~np.isin(rig.material_F, UNDRAWN)


def _traits(rig: Rig) -> np.ndarray:
    normals_V3 = rig.normals(rig.mean_V3[None])[0]
    normals_V3 = normals_V3 / (np.linalg.norm(normals_V3, axis=1, keepdims=True) + 1e-12)
    eye = np.isin(rig.material_V, (Material.LEFT_EYE, Material.RIGHT_EYE))
    columns = [*((rig.template_V3 - CENTRE) / SCALE).T, *normals_V3.T, rig.lip_V, rig.ambient_V, eye]
    columns += [rig.material_V == Material.CLOTHES, rig.material_V == Material.LONG_HAIR]
    assert len(columns) == len(TRAITS)
    return np.stack(columns, -1)


def _tables(rig: Rig, somebody: Portrait) -> dict[str, np.ndarray]:
    x, y, z = rig.template_V3.T
    neckline = 0.585 - 0.9 * np.maximum(0, 0.085 - np.abs(x)) * (y < 0)  # as in person.frag
    hair, kept = [], []
    for style in CHOICES["hair_style"]:
        field_V = hair_field(rig, replace(somebody.appearance, hair_style=style))
        falls = field_V if style in ("bob", "long") else np.full_like(field_V, -1.0)
        hair.append(np.where(rig.material_V == Material.LONG_HAIR, 0, field_V))
        kept_V = np.where(rig.material_V == Material.LONG_HAIR, falls, 1.0)
        kept.append(np.where(rig.material_V == Material.CLOTHES, neckline - z, kept_V))
    beard = [beard_field(rig, replace(somebody.appearance, beard=style)) for style in CHOICES["beard"]]
    return {"hair_SV": np.stack(hair), "kept_SV": np.stack(kept), "beard_SV": np.stack(beard)}

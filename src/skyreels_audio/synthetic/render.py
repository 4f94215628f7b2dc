"""Subjects in motion → frames with labels, by OpenGL without a screen (EGL; Mesa's software rasteriser will do).

Shape letters: T frame, V vertex, K action, H W pixels, L landmark.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import moderngl
import numpy as np

from skyreels_audio.faces import LIPS_OUTER as LIPS
from skyreels_audio.faces import lower_face_box
from skyreels_audio.faces.landmarks import MESH_TO_68
from skyreels_audio.synthetic.motion import Motion
from skyreels_audio.synthetic.rig import ACTIONS, Material, Rig
from skyreels_audio.synthetic.subject import Subject, gaze_vectors, pose, rotation_matrices

ASSETS = files("skyreels_audio.synthetic") / "assets"
SAMPLES = 4  # of multisampling
FINE = 2  # pixels each way in which it is counted how much of one shows the inside of a mouth
SAMPLE_ALPHA_TO_COVERAGE = 0x809E  # OpenGL's enum; moderngl has no name for it
BLINK = [ACTIONS.index("eyeBlinkLeft"), ACTIONS.index("eyeBlinkRight")]
HAIR_MARGIN = 0.02  # metres: triangles nearer to the hairline than this may carry hair
NOISE, PICTURE, PAINT, GROWTH, FRAME = range(5)  # texture units
MAP = 512  # pixels of the maps of skin and hair: 0.9 mm


@dataclass(frozen=True, eq=False)
class Rendered:
    frames: np.ndarray  # uint8 [T, H, W, 3]
    lip_mask: np.ndarray  # uint8 [T, H, W], 0..255: lips and the mouth between them
    mesh_TL2: np.ndarray  # MediaPipe's 468 points, pixels

    @cached_property
    def landmarks_T682(self) -> np.ndarray:
        """The 68 iBUG points, float32 pixels."""
        return self.mesh_TL2[:, list(MESH_TO_68)]

    @cached_property
    def lower_face_box_T4(self) -> np.ndarray:
        """Nose tip to below the chin, cheek to cheek: float32 xyxy pixels."""
        return np.stack([lower_face_box(points) for points in self.landmarks_T682])


class Renderer:
    """Draws one clip after another at a fixed size; owns an OpenGL context of its own."""

    def __init__(self, size: int | tuple[int, int] = 256):
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.rig = rig = Rig.load()
        self.gl = gl = moderngl.create_context(standalone=True, backend="egl")  # type: ignore[call-arg]
        gl.gc_mode = "context_gc"  # a clip's buffers go when the next begins, with this context current
        shape = (self.width, self.height)
        self._canvas = gl.framebuffer(
            [gl.renderbuffer(shape, 4, samples=SAMPLES)], gl.depth_renderbuffer(shape, samples=SAMPLES)
        )
        self._resolved = gl.texture(shape, 4)
        self._resolved_frame = gl.framebuffer([self._resolved])
        self._finished = gl.simple_framebuffer(shape, 4)
        noise = np.random.default_rng(5).integers(0, 256, (32, 32, 32, 3), np.uint8)
        self._noise = gl.texture3d((32, 32, 32), 3, noise.tobytes())

        count = len(rig.template_V3)
        self._dynamic = gl.buffer(reserve=count * 24, dynamic=True)
        self._traits = gl.buffer(reserve=count * 16)
        self._surface = gl.buffer(reserve=count * 8)
        self._template = gl.buffer(rig.template_V3.astype(np.float32).tobytes())
        self._place = gl.buffer(reserve=count * 8)
        self._maps = [gl.texture((MAP, MAP), 4) for _ in range(2)]
        self._maps_frame = gl.framebuffer(self._maps)
        self._corners = gl.buffer(np.array([-1, -1, 3, -1, -1, 3], np.float32).tobytes())
        self._source = gl.buffer(reserve=count * 12, dynamic=True)
        self._places_frames = {
            fine: gl.framebuffer([gl.texture(size, 4, dtype="f4")], gl.depth_renderbuffer(size))
            for fine, size in ((1, shape), (FINE, (FINE * self.width, FINE * self.height)))
        }
        self._fan = gl.buffer(reserve=(len(LIPS) + 2) * 8, dynamic=True)
        self._programs: dict[tuple, moderngl.Program] = {}
        self._lips = gl.vertex_array(self._program("lips.vert", "lips.frag"), [(self._fan, "2f", "pixel")])
        _set(self._lips.program, size=shape)

    def render(self, subject: Subject, motion: Motion) -> Rendered:
        """Every frame of the motion, with exact labels."""
        vertices_TV3 = pose(subject, motion.weights_TK)
        vertex_TV6 = np.concatenate([vertices_TV3, self.rig.normals(vertices_TV3)], -1)
        turn_T33 = rotation_matrices(motion.rotation_T3)
        mesh_TL2 = self._project(subject, vertices_TV3, turn_T33, motion.translation_T3)
        moving = {
            "turn": turn_T33.transpose(0, 2, 1),
            "shift": motion.translation_T3,
            "gaze": gaze_vectors(motion.gaze_T2),
            "blink": np.clip(motion.weights_TK[:, BLINK], 0, 1),
            "offset": np.array([subject.background.offset(t) for t in range(len(mesh_TL2))]),
        }
        with self.gl:  # there may be other contexts in this process
            self.gl.gc()
            frames = self._frames(subject, vertex_TV6, moving, mesh_TL2)
        return Rendered(np.ascontiguousarray(frames[..., :3]), np.ascontiguousarray(frames[..., 3]), mesh_TL2)

    def insides(self, subject: Subject, motion: Motion) -> np.ndarray:
        """Share of each pixel, float32 [T, H, W], that shows the inside of a mouth: teeth, tongue or cavity."""
        shares = []
        for t in range(len(motion)):
            surface_HW = self.places(subject, motion, [(t, t)], FINE)[0, ..., 3]
            shown_HW = np.isin(surface_HW, (Material.TEETH + 1, Material.TONGUE + 1)) | (surface_HW % 1 > 0)
            shares.append(shown_HW.reshape(self.height, FINE, self.width, FINE).mean((1, 3), dtype=np.float32))
        return np.stack(shares)

    def places(self, subject: Subject, motion: Motion, pairs: list[tuple[int, int]], fine: int = 1) -> np.ndarray:
        """For each pair of frames (source, target): where what a pixel of the target shows was in the source.

        Returns float32 [P, H, W, 4]: x and y in pixels of the source (pixel centres at .5), depth (NDC), and which
        surface it is (0: none, what is behind everything). With ``fine`` at FINE times the size.
        """
        vertices_TV3 = pose(subject, motion.weights_TK)
        turn_T33 = rotation_matrices(motion.rotation_T3)
        frame = self._places_frames[fine]
        result = np.empty((len(pairs), fine * self.height, fine * self.width, 4), np.float32)
        with self.gl:
            self.gl.gc()
            draws = self._place_draws(subject)
            for row, (source, target) in zip(result, pairs, strict=True):
                self._dynamic.write(np.concatenate([vertices_TV3[target], vertices_TV3[target]], -1))
                seen_V3 = self._seen(subject, vertices_TV3[source], turn_T33[source], motion.translation_T3[source])
                self._source.write(seen_V3)
                frame.use()
                frame.clear(depth=1.0)
                self.gl.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
                for surface in draws:
                    _set(surface.program, turn=turn_T33[target].T, shift=motion.translation_T3[target])
                    surface.render()
                row[:] = np.frombuffer(frame.read(components=4, dtype="f4"), np.float32).reshape(row.shape)[::-1]
        return result

    def seen(self, subject: Subject, motion: Motion, frame: int) -> np.ndarray:
        """Pixels x, y (down) and depth (NDC) of every vertex [V, 3] in one frame of a motion."""
        vertices_TV3 = pose(subject, motion.weights_TK[[frame]])
        turn_T33 = rotation_matrices(motion.rotation_T3[[frame]])
        return self._seen(subject, vertices_TV3[0], turn_T33[0], motion.translation_T3[frame])

    def _place_draws(self, subject: Subject) -> list[moderngl.VertexArray]:
        rig = self.rig
        traits_V4 = np.stack([rig.lip_V, subject.head_V, rig.cavity_V, rig.ambient_V], -1)
        self._traits.write(traits_V4.astype(np.float32))
        self._surface.write(subject.surface_V2.astype(np.float32))
        draws = []
        for material in Material:
            chosen_F = subject.visible_F & (rig.material_F == material)
            if material == Material.LASHES or not chosen_F.any():
                continue
            program = self._program("flow.vert", "flow.frag", MATERIAL=int(material))
            _set(program, collar=subject.uniforms.get("collar", 0.0), pivot=subject.pivot)
            _set(program, view_projection=subject.view_projection.T)
            triangles_F3 = rig.triangles_F3[chosen_F]
            if material == Material.LONG_HAIR:
                triangles_F3 = np.concatenate([triangles_F3, triangles_F3[:, ::-1]])
            buffers = [
                (self._dynamic, "3f 12x", "position"),
                (self._source, "3f", "source"),
                (self._template, "3f", "template_position"),
                (self._traits, "4f", "traits"),
                (self._surface, "2f", "surface"),
            ]
            indices = self.gl.buffer(np.ascontiguousarray(triangles_F3).tobytes())
            draws.append(self.gl.vertex_array(program, buffers, indices, skip_errors=True))
        return draws

    def _seen(self, subject: Subject, vertices_V3, turn_33, shift_3) -> np.ndarray:
        """Pixels x, y (down) and depth (NDC) of every vertex [V, 3] in one frame."""
        turned = (vertices_V3 - subject.pivot) @ turn_33.T + subject.pivot + shift_3
        points = vertices_V3 + subject.head_V[:, None] * (turned - vertices_V3)
        clip = np.c_[points, np.ones(len(points))] @ subject.view_projection.T
        ndc = clip[:, :3] / clip[:, 3:]
        half = np.array([self.width / 2, -self.height / 2, 1.0])
        return (ndc * half + [self.width / 2, self.height / 2, 0]).astype(np.float32)

    def _frames(self, subject: Subject, vertex_TV6, moving, mesh_TL2) -> np.ndarray:
        """Colours and, as alpha, the lip mask: uint8 [T, H, W, 4]."""
        draws, backdrop = self._scene(subject)
        look = self._look(subject.look) if subject.look else None
        frames = np.empty((len(vertex_TV6), self.height, self.width, 4), np.uint8)
        for t, frame in enumerate(frames):
            self._dynamic.write(vertex_TV6[t])
            self._draw(draws, backdrop, {name: values[t] for name, values in moving.items()}, mesh_TL2[t])
            self.gl.copy_framebuffer(self._resolved_frame, self._canvas)
            if look:
                self._finished.use()
                self._resolved.use(FRAME)
                look.render()
            result = self._finished if look else self._resolved_frame
            frame[:] = np.frombuffer(result.read(components=4), np.uint8).reshape(frame.shape)[::-1]
        return frames

    def _draw(self, draws, backdrop, place, mesh_L2):
        gl = self.gl
        self._use(True, True, True, True)
        gl.clear()
        self._use(True, True, True, False)
        gl.enable_only(moderngl.NOTHING)
        _set(backdrop.program, **place)
        backdrop.render()
        gl.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        gl.enable_direct(SAMPLE_ALPHA_TO_COVERAGE)
        self._noise.use(NOISE)
        for surface in draws:
            _set(surface.program, **place)
            surface.render()
        self._use(False, False, False, True)  # the lip mask travels in the alpha channel
        gl.enable_only(moderngl.NOTHING)
        gl.disable_direct(SAMPLE_ALPHA_TO_COVERAGE)
        contour = mesh_L2[list(LIPS)]
        self._fan.write(np.concatenate([contour.mean(0, keepdims=True), contour, contour[:1]]).astype(np.float32))
        self._lips.render(moderngl.TRIANGLE_FAN)

    def _use(self, *channels: bool) -> None:
        self._canvas.color_mask = channels  # type: ignore[assignment]
        self._canvas.use()  # a mask takes effect when its framebuffer is bound

    def _scene(self, subject: Subject) -> tuple[list[moderngl.VertexArray], moderngl.VertexArray]:
        """Vertex arrays of a subject's surfaces, nearest first, and of what stands behind."""
        rig = self.rig
        traits_V4 = np.stack([rig.lip_V, subject.head_V, rig.cavity_V, rig.ambient_V], -1)
        self._traits.write(traits_V4.astype(np.float32))
        self._surface.write(subject.surface_V2.astype(np.float32))
        self._place.write(subject.place_V2.astype(np.float32))
        if subject.skin == "person":
            self._paint(subject)
        hairy_F = (subject.surface_V2[rig.triangles_F3, 0] > -HAIR_MARGIN).any(1) & (subject.skin == "person")
        draws = []
        for material in Material:
            shader = f"{subject.skin}.frag" if material == Material.SKIN else "person.frag"
            for hairy in (False, True) if material == Material.SKIN else (None,):
                chosen_F = subject.visible_F & (rig.material_F == material)
                if hairy is not None:
                    chosen_F &= hairy_F == hairy
                if not chosen_F.any():
                    continue
                program = self._program("scene.vert", shader, MATERIAL=int(material), HAIRY=int(hairy or 0))
                self._light(program, subject)
                triangles_F3 = rig.triangles_F3[chosen_F]
                if material == Material.LONG_HAIR:  # also seen from within, behind the neck
                    triangles_F3 = np.concatenate([triangles_F3, triangles_F3[:, ::-1]])
                nearest_first = np.argsort(rig.template_V3[triangles_F3, 1].sum(1))
                draws.append(self._array(program, triangles_F3[nearest_first]))
        return draws, self._backdrop(subject)

    def _light(self, program: moderngl.Program, subject: Subject):
        units = dict(noise=NOISE, paint_map=PAINT, growth_map=GROWTH, picture=PICTURE)
        _set(program, **subject.uniforms, view_projection=subject.view_projection.T, pivot=subject.pivot, **units)

    def _backdrop(self, subject: Subject) -> moderngl.VertexArray:
        picture, around = subject.background.picture, subject.surroundings
        pixels = np.ascontiguousarray(picture[::-1]).tobytes()
        self._picture = self.gl.texture(picture.shape[1::-1], 3, pixels, alignment=1)
        self._picture.repeat_x = self._picture.repeat_y = False
        self._picture.build_mipmaps()
        self._picture.use(PICTURE)
        if around is None:
            screen = self._screen("backdrop.frag")
            _set(screen.program, picture=PICTURE, extent=(subject.background.extent,) * 2)
            return screen
        program = self._program("scene.vert", "photograph.frag", MATERIAL=0, HAIRY=0)
        self._light(program, subject)
        head, zero = around.head_N[:, None], np.zeros_like(around.vertices_N3[:, :1])
        texture = around.texture_N2
        vertex_N11 = np.concatenate([around.vertices_N3, zero, head, zero, zero, texture, texture], -1)
        names = "position", "traits", "surface", "place"
        content = [(self.gl.buffer(vertex_N11.astype(np.float32).tobytes()), "3f 4f 2f 2f", *names)]
        indices = self.gl.buffer(around.triangles_M3.astype(np.int32).tobytes())
        return self.gl.vertex_array(program, content, indices, skip_errors=True)

    def _paint(self, subject: Subject):
        """Skin and hair into their maps, once per clip."""
        rig = self.rig
        corners = rig.triangles_F3
        outside_F = (rig.material_F == Material.SKIN) & (rig.cavity_V[corners].max(1) == 0)
        outside_F &= np.ptp(subject.place_V2[corners, 0], axis=1) < 0.5  # not across the map's seam
        program = self._program("paint.vert", "paint.frag")
        _set(program, **subject.uniforms, noise=NOISE)
        self._maps_frame.use()
        self.gl.enable_only(moderngl.NOTHING)
        self._noise.use(NOISE)
        self._array(program, corners[outside_F]).render()
        for unit, texture in zip((PAINT, GROWTH), self._maps, strict=True):
            texture.use(unit)

    def _array(self, program: moderngl.Program, triangles_F3: np.ndarray) -> moderngl.VertexArray:
        buffers = [
            (self._dynamic, "3f 3f", "position", "normal"),
            (self._template, "3f", "template_position"),
            (self._traits, "4f", "traits"),
            (self._surface, "2f", "surface"),
            (self._place, "2f", "place"),
        ]
        return self.gl.vertex_array(program, buffers, self.gl.buffer(triangles_F3.tobytes()), skip_errors=True)

    def _look(self, look: dict[str, float]) -> moderngl.VertexArray:
        neutral = dict(levels=0.0, outline=0.0, canvas=0.0, saturation=1.0, sepia=0.0, contrast=1.0)
        screen = self._screen("look.frag")
        _set(screen.program, picture=FRAME, offset=(0, 0), extent=(1, 1), **(neutral | look))
        return screen

    def _screen(self, fragment: str) -> moderngl.VertexArray:
        return self.gl.vertex_array(self._program("backdrop.vert", fragment), [(self._corners, "2f", "corner")])

    def _program(self, vertex: str, fragment: str, **defines: int) -> moderngl.Program:
        key = (vertex, fragment, *defines.items())
        if key not in self._programs:
            head = "#version 330\n" + "".join(f"#define {k} {v}\n" for k, v in defines.items())
            head += (ASSETS / "light.glsl").read_text()
            vertex_source, fragment_source = (head + (ASSETS / name).read_text() for name in (vertex, fragment))
            self._programs[key] = self.gl.program(vertex_shader=vertex_source, fragment_shader=fragment_source)
        return self._programs[key]

    def _project(self, subject: Subject, vertices_TV3, turn_T33, shift_T3) -> np.ndarray:
        """MediaPipe's points in pixels [T, 468, 2]: what scene.vert does, for the landmarks."""
        points = self.rig.landmarks(vertices_TV3)
        head_L = np.einsum("lc,lc->l", subject.head_V[self.rig.landmark_corners_L3], self.rig.landmark_weights_L3)
        turned = np.einsum("tij,tlj->tli", turn_T33, points - subject.pivot) + subject.pivot + shift_T3[:, None]
        points = points + head_L[:, None] * (turned - points)
        seen = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ subject.view_projection.T
        xy = seen[..., :2] / seen[..., 3:]
        return ((xy * [0.5, -0.5] + 0.5) * [self.width, self.height]).astype(np.float32)


def _set(program: moderngl.Program, **values):
    """Set the uniforms that the program has kept; a matrix is given by columns."""
    for name, value in values.items():
        if name in program:
            if isinstance(value, np.ndarray):
                program[name].write(np.ascontiguousarray(value, np.float32))  # type: ignore[union-attr]
            else:
                program[name].value = value  # type: ignore[union-attr]

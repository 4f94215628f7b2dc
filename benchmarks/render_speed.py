"""Frames per second of the synthetic renderer at 256×256, two processes of one thread each.

python benchmarks/render_speed.py
"""

import os
import time
from concurrent.futures import ProcessPoolExecutor

os.environ |= {"LP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before the drivers load

import numpy as np

PROCESSES, CLIPS, FRAMES = 2, 6, 81


def render(worker: int) -> tuple[int, float, float]:
    """(frames, wall seconds, CPU seconds) of a few clips, identities and looks included, after a warm-up."""
    from skyreels_audio.synthetic.appearance import sample_appearance
    from skyreels_audio.synthetic.background import sample_background
    from skyreels_audio.synthetic.motion import Motion
    from skyreels_audio.synthetic.person import dress
    from skyreels_audio.synthetic.render import Renderer
    from skyreels_audio.synthetic.rig import ACTIONS

    renderer = Renderer(256)

    def clip(seed: int):
        rng = np.random.default_rng(seed)
        weights_TK = np.clip(rng.normal(0.1, 0.2, (FRAMES, len(ACTIONS))), 0, 1).astype(np.float32)
        zero = np.zeros((FRAMES, 3), np.float32)
        identity = renderer.rig.identity(seed)
        appearance = sample_appearance(seed, identity)
        subject = dress(renderer.rig, identity, appearance, sample_background(rng))
        renderer.render(subject, Motion(weights_TK, zero, zero, zero[:, :2]))

    for seed in range(CLIPS):  # compiles the shaders of every hair and look
        clip(1000 * worker + seed)
    wall, cpu = time.perf_counter(), time.process_time()
    for seed in range(CLIPS):
        clip(1000 * worker + seed)
    return CLIPS * FRAMES, time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    with ProcessPoolExecutor(PROCESSES) as pool:
        results = list(pool.map(render, range(PROCESSES)))
    for frames, wall, cpu in results:
        print(f"{1000 * wall / frames:.1f} ms a frame ({1000 * cpu / frames:.1f} ms of processor time)")
    print(f"{sum(frames / wall for frames, wall, _ in results):.0f} frames per second on {PROCESSES} processes")

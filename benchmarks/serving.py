"""The server under load and abuse, with the tests' stub renderer → docs/results/serving.md.

python benchmarks/serving.py            # five minutes of 50 jobs and 200 visitors, 20 kills, 500 malformed uploads
python benchmarks/serving.py --quick    # a few of each, in three minutes of one core
"""

import argparse
import asyncio
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "app"))

from running import PATIENCE, Running, ended, picture, submit, voice, wait_until  # noqa: E402

FULL = {"jobs": 50, "pollers": 200, "seconds": 300, "kills": 20, "uploads": 500, "examples": 20}
QUICK = {"jobs": 10, "pollers": 50, "seconds": 20, "kills": 3, "uploads": 24, "examples": 2}
BARS = {
    "p95_ms": "< 100",
    "not_finished": "0",
    "made_twice": "0",
    "lost": "0",
    "without_video": "0",
    "schemathesis": "no server error",
    "alive": "True",
    "left_behind": "0",
}
GENEROUS: dict[str, Any] = {"requests_per_minute": 1_000_000, "waiting_jobs": 10_000}


async def poll(port: int, path: str, cookie: str, until: float, waits: list[float]) -> None:
    """Ask after a job once a second over one connection; seconds per answer go to ``waits``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = f"GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\ncookie: {cookie}\r\n\r\n".encode()
    await asyncio.sleep(random.random())
    while time.monotonic() < until:
        start = time.monotonic()
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n", 1)[0], head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        waits.append(time.monotonic() - start)
        await asyncio.sleep(max(0.0, 1 - waits[-1]))
    writer.close()


def load(folder: Path, jobs: int, pollers: int, seconds: float) -> dict[str, Any]:
    """Jobs that fill the time, and visitors who ask after them."""
    server = Running(folder / "load", **GENEROUS)
    server.know_speeds()
    with server, server.client() as client:
        wait_until(lambda: psutil.Process(server.process.pid).children())
        each = max(0.1, seconds / jobs - 0.3)
        ids = [submit(client, folder, f"slow {each:.1f}", seed=str(seed))["id"] for seed in range(jobs)]
        process = psutil.Process(server.process.pid)
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        waits: list[float] = []
        memory, cpu = [process.memory_info().rss], sum(process.cpu_times()[:2])

        async def all_pollers() -> None:
            until = time.monotonic() + seconds
            port = server.options.port
            asking = [poll(port, f"/api/jobs/{ids[n % jobs]}", cookie, until, waits) for n in range(pollers)]

            async def watch() -> None:
                while time.monotonic() < until:
                    await asyncio.sleep(seconds / 20)
                    memory.append(process.memory_info().rss)

            await asyncio.gather(watch(), *asking)

        asyncio.run(all_pollers())
        cpu = sum(process.cpu_times()[:2]) - cpu
        states = [ended(client, id, PATIENCE + 10 * seconds)["state"] for id in ids]
        made = server.made.read_text().split()
        return {
            "jobs": jobs,
            "pollers": pollers,
            "seconds": seconds,
            "answers": len(waits),
            "p50_ms": round(1000 * float(np.percentile(waits, 50)), 1),
            "p95_ms": round(1000 * float(np.percentile(waits, 95)), 1),
            "cpu_ms_per_answer": round(1000 * cpu / max(1, len(waits)), 2),
            "machine_load": round(psutil.getloadavg()[0], 1),
            "not_finished": jobs - states.count("finished"),
            "made_twice": len(made) - len(set(made)),
            "memory_mb": [round(memory[0] / 1e6), round(memory[-1] / 1e6)],
        }


def running(client: Any) -> int:
    """How many jobs run."""
    return sum(job["state"] == "running" for job in client.get("/api/jobs").json())


def kills(folder: Path, count: int) -> dict[str, Any]:
    """kill -9 of the server at random moments while jobs wait, run and finish; then all are counted."""
    server, submitted, amid = Running(folder / "kills", **GENEROUS), [], 0
    client = server.client()
    server.know_speeds()
    random.seed(0)
    for number in range(count):
        server.start()
        for seed in (2 * number, 2 * number + 1):
            submitted.append(submit(client, folder, "slow 0.5", seed=str(seed))["id"])
        if number % 2:  # not only while a worker starts, which takes long on a busy machine
            wait_until(lambda: running(client))
        time.sleep(random.uniform(0, 1 if number % 2 else 3))
        amid += running(client)
        server.kill()
    with server:
        states = [ended(client, id)["state"] for id in submitted]
        whole = [client.get(f"/api/jobs/{id}/result").status_code for id in submitted]
    made = server.made.read_text().split()
    return {
        "kills": count,
        "jobs": len(submitted),
        "amid_a_job": amid,
        "lost": len(submitted) - states.count("finished"),
        "without_video": len(submitted) - whole.count(200),
        "made_again_after_a_kill": len(made) - len(set(made)),
    }


def malformed(rng: random.Random, good: dict[str, bytes]) -> tuple[str, bytes]:
    """A field and something that is no good file for it: cut, noisy, glued, swapped, huge, or a bomb."""
    field = rng.choice(["picture", "video", "voice"])
    data = bytearray(good[rng.choice(list(good))])
    way = rng.choice(["cut", "noise", "glue", "head", "bomb", "text"])
    if way == "cut":
        data = data[: rng.randrange(1, len(data))]
    elif way == "noise":
        for _ in range(rng.randrange(1, 200)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif way == "glue":
        data = data[: len(data) // 2] + bytearray(good[rng.choice(list(good))])
    elif way == "head":
        data = data[:16] + rng.randbytes(5000)
    elif way == "bomb":
        data = bytearray(good["bomb"])
    else:
        data = bytearray(b"#EXTM3U\nfile:///etc/passwd\n" * 10)
    return field, bytes(data)


def abuse(folder: Path, count: int, examples: int) -> dict[str, Any]:
    """Malformed uploads, then schemathesis on the OpenAPI page."""
    from PIL import Image

    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "png")
    good = {"picture": picture(folder / "p.png").read_bytes(), "voice": voice(folder / "v.wav").read_bytes()}
    with Running(folder / "abuse", upload_mb=5, **GENEROUS) as server, server.client() as client:
        submitted = submit(client, folder)
        ended(client, submitted["id"])
        good["video"] = client.get(f"/api/jobs/{submitted['id']}/result").content
        good["bomb"] = bomb.getvalue()
        process, rng = psutil.Process(server.process.pid), random.Random(0)
        memory, codes = process.memory_info().rss, []
        for _ in range(count):
            field, data = malformed(rng, good)
            files = {field: data} if field == "voice" else {field: data, "voice": good["voice"]}
            answer = client.post("/api/look" if field != "voice" else "/api/jobs", files=files, data={"prompt": "x"})
            codes.append(answer.status_code)
        big = client.post("/api/jobs", files={"voice": b"RIFF" + bytes(20 << 20)}, data={"prompt": "x"})
        codes.append(big.status_code)
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/api/openapi.json"]
        command += ["--checks", "not_a_server_error", "--max-examples", str(examples), "--seed", "1"]
        command += ["--exclude-path", "/api/jobs/{id}/events"]
        checked = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=folder)
        left = [path for path in (server.options.folder / "uploads").rglob("raw")]
        return {
            "uploads": len(codes),
            "answers": {str(code): codes.count(code) for code in sorted(set(codes))},
            "oversized": big.status_code,
            "schemathesis": "no server error" if checked.returncode == 0 else checked.stdout[-1500:],
            "alive": client.get("/api/server").status_code == 200,
            "left_behind": len(left),
            "memory_mb": [round(memory / 1e6), round(process.memory_info().rss / 1e6)],
        }


def report(results: dict[str, Any]) -> str:
    about = "`make bench-serving`: the real server, queue and decoding, the tests' stub renderer."
    lines = ["# The server under load, kills and abuse", "", about, ""]
    for part, found in results.items():
        lines += [f"## {part.capitalize()}", "", "| | | bar |", "| --- | ---: | --- |"]
        lines += [f"| {name.replace('_', ' ')} | {value} | {BARS.get(name, '')} |" for name, value in found.items()]
        lines += [""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--only", nargs="*", default=["load", "kills", "abuse"], help="load, kills, abuse")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "serving.md")
    asked = parser.parse_args()
    size, stored = QUICK if asked.quick else FULL, asked.output.with_suffix(".json")
    results = json.loads(stored.read_text()) if stored.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        parts = {
            "load": lambda: load(Path(name), size["jobs"], size["pollers"], size["seconds"]),
            "kills": lambda: kills(Path(name), size["kills"]),
            "abuse": lambda: abuse(Path(name), size["uploads"], size["examples"]),
        }
        for part in asked.only:
            when = f"{time.strftime('%Y-%m-%d %H:%M')}, {'a few of each' if asked.quick else 'at full size'}"
            results[part] = {"run": when, **parts[part]()}
            print(part, json.dumps(results[part]), flush=True)
            stored.write_text(json.dumps(results, indent=2) + "\n")
            asked.output.write_text(report(results))


if __name__ == "__main__":
    main()

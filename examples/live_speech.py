"""A text-to-speech stream through a live face: speaks each line of stdin, and writes the video that comes back.

    skyreels-audio app &
    echo "Hello there." | python examples/live_speech.py live.mp4 ws://localhost:7860/api/live

Needs espeak-ng, ffmpeg and the extra [app]. Any other synthesizer does as well: send its samples as they come.
"""

import asyncio
import json
import sys

import websockets

RATE = 16_000
REST = 1.0  # seconds of video after the last word


async def speak(socket: websockets.ClientConnection, line: str) -> float:
    """Send a line as the synthesizer speaks it; how many seconds it takes to say."""
    command = f"espeak-ng --stdin --stdout | ffmpeg -loglevel error -i - -f s16le -ac 1 -ar {RATE} -"
    pipe = asyncio.subprocess.PIPE
    speaking = await asyncio.create_subprocess_shell(command, stdin=pipe, stdout=pipe)
    assert speaking.stdin is not None and speaking.stdout is not None
    speaking.stdin.write(line.encode())
    speaking.stdin.close()
    sent = 0
    while samples := await speaking.stdout.read(RATE // 5 * 2):
        await socket.send(samples)
        sent += len(samples)
    return sent / 2 / RATE


async def keep(socket: websockets.ClientConnection, path: str, speaking: asyncio.Task[float]) -> None:
    """Write the video until all of the voice is spoken and the face has come to rest."""
    end = None
    with open(path, "wb") as file:
        async for data in socket:
            if isinstance(data, bytes):
                file.write(data)
                continue
            said = json.loads(data)
            if end is None and speaking.done() and said["spoken"] > speaking.result() - 0.02:
                end = said["seconds"] + REST
            if end is not None and said["seconds"] >= end:
                return


async def main(path: str, address: str) -> None:
    async with websockets.connect(address, max_size=None) as socket:
        await socket.send(json.dumps({}))  # the example portrait; {"picture": …, "consent": true} for an upload
        print(await socket.recv(), file=sys.stderr)

        async def lines() -> float:
            return sum([await speak(socket, line) for line in sys.stdin])

        await keep(socket, path, asyncio.create_task(lines()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))

"""What a run tells: ``metrics.jsonl`` always, a tracker beside it, and the events that need a look."""

import json
import logging
from pathlib import Path
from typing import Any

from skyreels_audio.media import InputError
from skyreels_audio.media.files import replacing, writing
from skyreels_audio.training.options import Optimisation

log = logging.getLogger(__name__)


class Metrics:
    """One row per report. Rows past the step that a run goes on from are removed: no step is told twice."""

    def __init__(self, folder: Path, tracker: str, step: int) -> None:
        self.folder, self.path = folder, folder / "metrics.jsonl"
        self._tracker, self._name = None, tracker
        self.rewind(step)
        if tracker == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            self._tracker: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        elif tracker != "none":
            try:
                self._tracker = __import__(tracker)
            except ModuleNotFoundError:
                raise InputError(f"The recipe asks for the tracker {tracker}: pip install {tracker}.") from None
            self._tracker.init(project="skyreels-audio", name=folder.name)

    def rewind(self, step: int) -> None:
        """Forget what was told of later steps, and a row that a kill cut in two."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row["step"] <= step:
                kept.append(line)
        with writing(self.path), replacing(self.path) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept))

    def report(self, step: int, values: dict[str, float]) -> None:
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": step, **{name: round(value, 6) for name, value in values.items()}}) + "\n")
        if self._name == "tensorboard":
            for name, value in values.items():
                self._tracker.add_scalar(name, value, step)
        elif self._tracker is not None:
            self._tracker.log(values, step=step)

    def event(self, step: int, sentence: str) -> None:
        """Something out of the ordinary: kept in ``events.jsonl`` whatever happens later."""
        log.warning("step %d: %s", step, sentence)
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "event": sentence}) + "\n")

    def close(self) -> None:
        if self._name == "tensorboard":
            self._tracker.close()
        elif self._tracker is not None:
            self._tracker.finish()


class Silence(Metrics):
    """All processes but the first tell nothing."""

    def __init__(self) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass

    def report(self, step: int, values: dict[str, float]) -> None:
        pass

    def event(self, step: int, sentence: str) -> None:
        pass

    def close(self) -> None:
        pass


def open_metrics(folder: Path, options: Optimisation, step: int, first: bool) -> Metrics:
    return Metrics(folder, options.tracker, step) if first else Silence()

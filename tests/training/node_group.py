"""What torchrun starts in each process of a node group: FOLDER NAME STEPS."""

import sys
from pathlib import Path

from tests.training.processes import train_on_noise

if __name__ == "__main__":
    train_on_noise(Path(sys.argv[1]), sys.argv[2], {"steps": int(sys.argv[3])})

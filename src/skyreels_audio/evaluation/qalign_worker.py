"""Runs alone, in the Python that Q-Align's model needs (see qalign.py): lines of JSON in, lines of JSON out.

    python qalign_worker.py FOLDER < requests > answers

A request is {"pictures": [path, …], "task": "quality" or "aesthetics"}; the pictures are one clip. The answer is
{"score": 1 … 5}.
"""

import json
import sys
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForCausalLM


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the libraries print must not be an answer
    # The model's code is in its folder: that is how its authors publish it.
    model: Any = AutoModelForCausalLM.from_pretrained(
        sys.argv[1], trust_remote_code=True, torch_dtype=torch.float16, device_map="auto"
    )
    for line in sys.stdin:
        request = json.loads(line)
        pictures = [Image.open(path).convert("RGB") for path in request["pictures"]]
        score = float(model.score([pictures], task_=request["task"], input_="video")[0])
        print(json.dumps({"score": score}), file=answers, flush=True)


if __name__ == "__main__":
    main()

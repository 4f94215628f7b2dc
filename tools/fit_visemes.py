"""How far lips part for each class of sounds, when, and how much it insists: fitted to filmed recordings.

    python tools/fit_visemes.py data/talking [--clips 500]

Prints, beside the present numbers of ``synthetic.visemes``, those that follow the lips of the recordings best: a
dominance model whose targets, dominances and reaches before and after are found all at once by gradient descent.
Sentences that are held out from training are held out here too, and r is printed for them. Round the numbers by hand:
classes that hardly occur keep their start, and what only sentences of one pattern say reaches too far.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from skyreels_audio.synthetic import visemes
from skyreels_audio.synthetic.sentences import is_test
from skyreels_audio.synthetic.voices import recording

STEPS, BATCH = 600, 96
LIKELY = 0.06  # weight of what keeps dominances near 1 and reaches near ``USUAL``
USUAL = 45.0  # milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, help="folder of grid-<speaker>-<code>.mp4")
    parser.add_argument("--clips", type=int, default=500)
    options = parser.parse_args()

    names = ["rest", *visemes._CLASSES]
    said, seen, held_out = read(sorted(options.recordings.glob("grid-*.mp4"))[: options.clips], names)
    torch.manual_seed(0)
    scale = seen[~held_out].std()
    target = torch.full((len(names),), float((seen / scale).median()), requires_grad=True)
    insists, reach = (torch.zeros(shape, requires_grad=True) for shape in ((len(names),), (len(names), 2)))
    optimizer = torch.optim.Adam([{"params": [target], "lr": 0.08}, {"params": [insists, reach], "lr": 0.05}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    train = torch.where(~held_out)[0]
    for _ in tqdm(range(STEPS), desc="fit"):
        chosen = train[torch.randperm(len(train))[:BATCH]]
        error = parting(said[chosen], target, insists, reach) - seen[chosen] / scale
        error = error - error.mean(1, keepdim=True)
        loss = error.square().mean() + LIKELY * (insists.square().mean() + reach.square().mean() / 0.35)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    with torch.no_grad():
        found = parting(said[held_out], target, insists, reach)
    print(f"r on {len(found)} sentences held out: {correlation(found, seen[held_out]):.3f}")
    rest = float(target[0])
    for number, name in enumerate(names):
        now = visemes._REST_PART if name == "rest" else visemes._CLASSES[name][1]
        before, after = (USUAL * reach[number].exp()).tolist()
        part = float((target[number] - rest) * scale)
        print(f"{name:13s} {part:5.2f} {float(insists[number].exp()):4.2f} {before:3.0f} {after:3.0f}   now {now}")


def read(paths: list[Path], names: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Of clips of equal length: what is said [B, n] (a number of ``names`` at 100 Hz), how far lips part, held out?"""
    said, seen, held_out = [], [], []
    for path in tqdm(paths, desc="recordings"):
        try:
            utterance = recording(path)
        except ValueError:
            continue
        count = round(utterance.duration * visemes.CURVE_RATE)
        classes = np.zeros(count, int)
        for start, end, letter in visemes.segments(utterance.phonemes):
            first, last = (max(round((time - visemes._LEAD) * visemes.CURVE_RATE), 0) for time in (start, end))
            classes[first:last] = names.index(visemes._CLASS_OF[letter])
        said.append(classes)
        seen.append(np.interp(np.arange(count) / visemes.CURVE_RATE, *np.array(utterance.seen).T))
        held_out.append(is_test(utterance.text))
    least = min(map(len, said))
    stack = (np.stack([values[:least] for values in each]) for each in (said, seen))
    classes_Bn, parted_Bn = map(torch.from_numpy, stack)
    return classes_Bn, parted_Bn.float(), torch.tensor(held_out)


def parting(said_Bn: Tensor, target: Tensor, insists: Tensor, reach: Tensor) -> Tensor:
    """`visemes._parting`, which can be derived."""
    offset = torch.arange(-visemes._WIDEST, visemes._WIDEST + 1) * 1000 / visemes.CURVE_RATE
    before, after = (USUAL * reach.exp()).T[:, :, None]
    weight = insists.exp()[:, None] * torch.exp(-0.5 * (offset / torch.where(offset < 0, before, after)).square())
    where = torch.nn.functional.one_hot(said_Bn, len(target)).float().transpose(1, 2)
    where = torch.nn.functional.pad(where, (visemes._WIDEST, visemes._WIDEST), mode="replicate")
    dominance = torch.nn.functional.conv1d(where, weight.flip(1)[:, None], groups=len(target))
    return (target[:, None] * dominance).sum(1) / dominance.sum(1).clamp(min=1e-6)


def correlation(a_Bn: Tensor, b_Bn: Tensor) -> float:
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(a_Bn.numpy(), b_Bn.numpy(), strict=True)]))


if __name__ == "__main__":
    main()

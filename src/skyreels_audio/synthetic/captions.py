"""Sentences about a clip, made from what is known to be in it."""

import numpy as np

from skyreels_audio.synthetic.appearance import Appearance
from skyreels_audio.synthetic.background import Background
from skyreels_audio.synthetic.motion import Manner
from skyreels_audio.synthetic.rig import Identity

# The columns of a clip's attributes; None where nothing is known. Captions and classifiers use the same words.
ATTRIBUTES = (
    *("noun", "sex", "age", "skin", "hair_colour", "hair_style", "beard", "eyes", "clothes"),
    *("expression", "motion", "background", "background_colour", "light", "look"),
)
Attributes = dict[str, str | None]

_HAIR = {
    "bald": "a bald head",
    "cropped": "cropped {} hair",
    "short": "short {} hair",
    "swept back": "{} hair swept back",
    "curly": "curly {} hair",
    "bob": "a {} bob",
    "long": "long {} hair",
}
_BEARD = {"stubble": "stubble", "moustache": "a moustache", "goatee": "a goatee", "full": "a full beard"}
_ANYBODY = (
    "person",
    "person",
    "woman",
    "man",
    "young woman",
    "young man",
    "elderly woman",
    "elderly man",
    "child",
    "head",
)
SHORT = 0.3  # share of prompts of a motion that name nothing else
_EXPRESSION = {
    "neutral": ("with a neutral expression", "calmly", "with a relaxed face"),
    "smiling": ("with a smile", "smiling", "cheerfully"),
    "sad": ("with a sad expression", "sadly", "looking sad"),
    "surprised": ("with a surprised expression", "in surprise", "with raised eyebrows"),
    "angry": ("with an angry expression", "angrily", "frowning"),
}
_MOTION = {
    "still": ("the head is still", "the head does not move", "holding the head still"),
    "slight": ("the head moves slightly", "with slight head movements", "the head sways gently"),
    "lively": ("the head moves a lot", "with lively head movements", "moving the head freely"),
    "nodding": ("nodding", "the head nods", "with nods", "the head is nodding", "nodding the head"),
    "shaking": (
        *("shaking the head", "the head shakes from side to side", "with shakes of the head", "the head is shaking"),
        "shaking from side to side",
    ),
    "looking left": ("looking left", "looks to the left", "turned to the left"),
    "looking right": ("looking right", "looks to the right", "turned to the right"),
    "looking down": ("looking down", "looks down", "with the head lowered"),
    "looking up": ("looking up", "looks up", "with the head raised"),
}


def manner_attributes(manner: Manner) -> Attributes:
    """Expression and motion: a gesture is what a viewer notices first of a head's motion."""
    return {"expression": manner.expression, "motion": manner.gesture or manner.head}


def motion_prompt(manner: Manner, rng: np.random.Generator) -> str:
    """What is asked of a picture that is to speak: a caption of anybody, or only the words that matter.

    Slight motion is what is meant where none is named, as often as not.
    """
    attributes = manner_attributes(manner) | {"noun": _one(_ANYBODY, rng)}
    named = manner.gesture is not None or manner.head != "slight" or rng.random() < 0.5
    if rng.random() > SHORT:
        return caption(attributes | ({} if named else {"motion": None}), rng)
    words = _one(_EXPRESSION[manner.expression], rng), _one(_MOTION[manner.gesture or manner.head], rng)
    expressive = manner.expression != "neutral" or not named or rng.random() < 0.3
    told = [words[i] for i in rng.permutation(2) if (expressive, named)[i]]
    return _capital(", ".join(told)) + ("." if rng.random() < 0.7 else "")


def background_attributes(background: Background) -> Attributes:
    return {"background": background.kind, "background_colour": background.colour}


def person_attributes(identity: Identity, appearance: Appearance) -> Attributes:
    """Who a drawn person is and how the picture is made."""
    bald = appearance.hair_style == "bald"
    return {
        "noun": identity.noun,
        "sex": identity.sex,
        "age": identity.age_group,
        "skin": appearance.skin_word,
        "hair_colour": None if bald else appearance.hair_word,
        "hair_style": appearance.hair_style,
        "beard": appearance.beard,
        "eyes": appearance.iris_word,
        "clothes": appearance.cloth_word,
        "light": appearance.light.word,
        "look": appearance.look,
    }


def caption(attributes: Attributes, rng: np.random.Generator) -> str:
    """One or two English sentences: who, how they speak and move, where; in one of several orders.

    What is None is left out; of the person's details, each is left out now and then.
    """
    who = _article(attributes.get("noun") or "person") + _details(attributes, rng)
    manner = _one(("speaks", "is talking", "talks to the camera", "is speaking"), rng)
    expression = _one(_EXPRESSION[attributes.get("expression") or "neutral"], rng)
    told = attributes.get("motion", "still")
    motion = f", {_one(_MOTION[told], rng)}" if told else ""
    setting = _setting(attributes, rng)
    look = attributes.get("look") or "realistic"
    medium = _one(("video", "portrait", "close-up"), rng) if look == "realistic" else look
    templates = (
        f"{who} {manner} {expression}{motion}{', ' + setting if setting else ''}.",
        f"{_article(medium)} of {who} who {manner} {expression}{motion}. {_capital(setting or 'nothing else')}.",
        f"{_capital(setting) + ', ' if setting else ''}{who} {manner} {expression}{motion}.",
        f"{who} {manner}{motion}, {expression}{'; ' + setting if setting else ''}.",
    )
    first = 1 if look != "realistic" else int(rng.integers(len(templates)))
    return _capital(templates[first])


_NOUNS = {
    "elderly man": ("old man", "elderly man", "grandfather", "old gentleman"),
    "elderly woman": ("old woman", "elderly woman", "grandmother", "old lady"),
    "middle-aged man": ("man", "middle-aged man"),
    "middle-aged woman": ("woman", "middle-aged woman"),
    "young man": ("young man", "man", "guy"),
    "young woman": ("young woman", "woman", "lady"),
    "boy": ("boy", "little boy", "child"),
    "girl": ("girl", "little girl", "child"),
}
_ANCESTRY = {"african": ("black", "African"), "asian": ("Asian",), "european": ("white", "European")}
_SYNONYMS = {"blond": ("blond", "blonde"), "red": ("red", "ginger"), "grey": ("grey", "gray")}


def description(attributes: Attributes, rng: np.random.Generator, tell: float) -> str:
    """A short phrase as people write: "an old man with a white beard against a blue background".

    Each detail is told with probability ``tell``; ``attributes["ancestry"]`` is a key of ``_ANCESTRY`` or missing.
    """
    told = {name: word if rng.random() < tell else None for name, word in attributes.items()}
    noun = _one(_NOUNS.get(attributes["noun"] or "", ("person",)), rng)
    origin = told.get("ancestry")
    ancestry = _one(_ANCESTRY[origin], rng) if origin else ""
    colour = told["hair_colour"] and _one(_SYNONYMS.get(told["hair_colour"], (told["hair_colour"],)), rng)
    parts = []
    if told["hair_style"]:
        parts.append(_HAIR[told["hair_style"]].format(colour or "").replace("  ", " ").replace("a  ", "a ").strip())
    elif colour:
        parts.append(f"{colour} hair")
    if told["beard"] in _BEARD:
        beard = _BEARD[told["beard"]]
        bearded = told["beard"] in ("full", "goatee", "moustache") and colour and rng.random() < 0.5
        parts.append(
            _article(f"{colour} {'beard' if told['beard'] == 'full' else told['beard']}") if bearded else beard
        )
    if told["skin"]:
        parts.append(f"{told['skin']} skin")
    if told["eyes"]:
        parts.append(f"{told['eyes']} eyes")
    parts = [parts[i] for i in rng.permutation(len(parts))]
    words = _article(f"{ancestry} {noun}".strip())
    words += " with " * bool(parts) + " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))
    if told["clothes"]:
        words += _one((" in {}", " wearing {}", " dressed in {}"), rng).format(
            _one(("{}", "a {} shirt", "a {} top"), rng).format(told["clothes"])
        )
    if told["background_colour"]:
        wall = _one(("background", "wall", "backdrop"), rng)
        kind = told["background"] if rng.random() < 0.5 else None
        words += f" {_one(('against', 'in front of', 'before'), rng)} "
        words += _article(" ".join(filter(None, (kind, told["background_colour"], wall))))
    if told["light"] and rng.random() < 0.5:
        words += f" in {told['light']} light"
    return _one((words, _capital(words) + ".", f"A portrait of {words}.", f"{words}, portrait"), rng)


def _details(attributes: Attributes, rng: np.random.Generator) -> str:
    details = []
    if style := attributes.get("hair_style"):
        details.append(_HAIR[style].format(attributes.get("hair_colour") or "").replace("  ", " "))
    if skin := attributes.get("skin"):
        details.append(f"{skin} skin")
    if (beard := attributes.get("beard")) in _BEARD:
        details.append(_BEARD[beard])
    if eyes := attributes.get("eyes"):
        details.append(f"{eyes} eyes")
    kept = [detail for detail in details if rng.random() < 0.75]
    listed = " and ".join(filter(None, (", ".join(kept[:-1]), *kept[-1:])))
    clothes = attributes.get("clothes")
    worn = f" in {_article(clothes + ' ' + _one(('shirt', 'top'), rng))}" if clothes and rng.random() < 0.6 else ""
    return (f" with {listed}" if listed else "") + worn


def _setting(attributes: Attributes, rng: np.random.Generator) -> str:
    colour, kind, light = (attributes.get(key) for key in ("background_colour", "background", "light"))
    parts = []
    if kind:
        place = _one(("against", "in front of"), rng)
        parts.append(f"{place} {_article(' '.join(filter(None, (kind, colour))))} background")
    if light and (not parts or rng.random() < 0.6):
        parts.append(f"in {light} light")
    return " ".join(parts)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _capital(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:]


def _one(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]

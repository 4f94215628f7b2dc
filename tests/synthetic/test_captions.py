import numpy as np
import pytest

from skyreels_audio.synthetic import captions
from skyreels_audio.synthetic.appearance import sample_appearance
from skyreels_audio.synthetic.captions import ATTRIBUTES, caption, manner_attributes, motion_prompt, person_attributes
from skyreels_audio.synthetic.motion import DIRECTIONS, EXPRESSIONS, GESTURES, HEADS, Manner
from skyreels_audio.synthetic.rig import Rig


def test_every_manner_has_words():
    for expression in EXPRESSIONS:
        for head in HEADS:
            for gesture in (None, *GESTURES) if head != "still" else (None,):
                text = caption(manner_attributes(Manner(expression, head, gesture)), np.random.default_rng(0))
                assert text.endswith(".") and "person" in text


@pytest.mark.parametrize("seed", range(30))
def test_captions_are_clean_sentences(seed):
    identity = Rig.load().identity(seed)
    known = person_attributes(identity, sample_appearance(seed, identity)) | {"background": "plain"}
    known |= {"background_colour": "orange"} | manner_attributes(Manner("smiling", "slight", "nodding"))
    assert set(known) <= set(ATTRIBUTES)
    text = caption(known, np.random.default_rng(seed))
    assert identity.noun in text.lower() and "nod" in text and "plain orange background" in text
    assert text[0].isupper() and text.endswith(".")
    assert not any(wrong in text for wrong in ("  ", "{", "None", " a e", " a o", " ,", "..", "with and"))
    assert text == caption(known, np.random.default_rng(seed))


def test_captions_vary():
    known = manner_attributes(Manner("sad", "lively")) | {"noun": "young woman", "hair_style": "bald", "skin": "light"}
    assert len({caption(known, np.random.default_rng(seed)) for seed in range(40)}) > 25


def test_half_of_the_prompts_of_slight_motion_say_nothing_of_it() -> None:
    rng = np.random.default_rng(0)
    prompts = [motion_prompt(Manner("smiling", "slight"), rng).lower() for _ in range(200)]
    named = sum(any(phrase in prompt for phrase in captions._MOTION["slight"]) for prompt in prompts)
    assert 70 < named < 130 and all("head" in p or "smil" in p or "cheerfully" in p for p in prompts)


@pytest.mark.parametrize("gesture", [*GESTURES, *DIRECTIONS])
def test_a_prompt_of_a_motion_always_names_it_and_some_name_nothing_else(gesture: str) -> None:
    rng = np.random.default_rng(0)
    prompts = [motion_prompt(Manner("smiling", "slight", gesture), rng).lower() for _ in range(60)]
    assert all(any(phrase in prompt for phrase in captions._MOTION[gesture]) for prompt in prompts)
    assert 8 < sum(len(prompt.split()) < 8 for prompt in prompts) < 40

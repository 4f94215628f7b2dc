"""Things to say: English sentences from a small grammar, other languages from the system's translation catalogues."""

import gettext
import re
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

CATALOGUES = Path("/usr/share/locale")
# espeak-ng language → folder of the system's gettext catalogues.
LANGUAGES = {
    "de": "de", "fr": "fr", "es": "es", "it": "it", "ru": "ru", "pl": "pl", "pt": "pt", "hi": "hi",
    "ar": "ar", "tr": "tr", "nl": "nl", "fi": "fi", "el": "el", "sv": "sv", "cs": "cs", "hu": "hu", "ro": "ro",
    "uk": "uk", "id": "id", "vi": "vi", "ko": "ko",
}  # fmt: skip
ENGLISH = ("en-us", "en", "en-029", "en-gb-scotland")
TEST_SHARE = 8  # one sentence in eight never occurs in training

# Every word below is in CMUdict, so that recordings of these sentences can be force-aligned.
_NOUNS = (
    "apple baby bag ball banana basket beach bear bed bell bench bike bird boat book bottle bowl box boy branch bread "
    "bridge brother bus butter cake camera candle car carpet cat chair cheese chicken child church city clock cloud "
    "coat coffee cookie corner cow cup daughter doctor dog door dream dress drum duck egg elephant engine eye family "
    "farm farmer father feather field finger fire fish flag floor flower foot forest fork fox friend frog garden gate "
    "ghost gift girl glass glove goat grape grass guitar hammer hand hat heart hill honey horse house island jacket "
    "jar key king kitchen kite knife lady ladder lake lamp leaf lemon letter library lion map market milk mirror money "
    "monkey moon morning mother mountain mouse movie mushroom music neighbor nest newspaper nose notebook number "
    "ocean office onion orange owl page paint pan paper park party path peach pencil pepper phone photo piano picture "
    "pie pig pillow pilot plane plate pocket poem potato prize puppy purse puzzle queen question rabbit radio rain "
    "ribbon ring river road robot rock roof room rope rose sailor salt sand sandwich scarf school sea seed shadow "
    "sheep ship shirt shoe shop sister sky snow soap sock song soup spider spoon spring star station stone storm "
    "story street student sugar suit summer sun sweater table teacher tent theater thumb ticket tiger tomato tooth "
    "tower town toy train tree truck turtle uncle valley village violin voice wagon wall watch water wave wheel "
    "whistle wind window winter wolf woman wood worm yard zebra"
)
_ADJECTIVES = (
    "amazing angry beautiful big black blue bold brave bright broken brown busy calm careful cheap clean clever cold "
    "cool crazy cute dark deep dirty dry early easy empty famous fast fat fine fresh friendly full funny gentle golden "
    "good gray great green happy hard heavy high honest hot huge hungry important kind large lazy light little lonely "
    "long loud lovely lucky modern narrow new nice noisy old open perfect pink plain pleasant polite poor popular "
    "pretty proud purple quick quiet rare red rich rough round sad safe salty sharp shiny short shy silent silly "
    "silver simple slow small smart smooth soft sour special square strange strong sweet tall tasty thick thin tiny "
    "tired ugly useful violet warm weak wet white wide wild wise wonderful wooden yellow young"
)
_VERBS = (
    "admire bring build buy carry catch change choose clean cook count cover deliver describe discover draw drop enjoy "
    "examine explain find finish fix follow forget gather give grab guard help hide hold imagine improve invite keep "
    "know learn leave lend like lose love mail make measure meet miss mix move need offer open order own pack paint "
    "photograph pick plan prefer prepare protect pull push put remember remove repair save see sell send share show "
    "steal study take taste teach throw touch trust turn understand use visit want wash watch"
)
_PEOPLE = (
    "I|we|they|you|my mother|your father|our neighbor|the teacher|a young man|the old woman|everybody|both brothers|"
    "most people|Bob|Mary|Peter|Emma|Philip|Barbara|Thomas|the boys|these women|some farmers|her best friend|his boss"
)
_PLACES = (
    "in the park|at the beach|behind the house|by the river|under the bridge|on the table|near the market|in Paris|"
    "above the shop|between two mountains|at home|in the middle of the room|from the village|over the fence|"
    "beside the pool|before the storm|after breakfast|with a big smile|without a map|for my family|about the move"
)
_TIMES = (
    "today|tomorrow|every morning|last summer|on Friday|in November|before dinner|five minutes ago|once more|at noon|"
    "very often|from time to time|this afternoon|twelve years ago|next week|all night|some day|quite soon|by now"
)
_CLAUSES = (
    "because {p} {m} {v} the {n}|but {p} {m} not {v} the {a} {n}|and then {p} {m} {v} {d} {n}|when {p} {m} {v} the {n}|"
    "although the {n} was {a}|so that {p} {m} {v} {d} {a} {n}|while the {n} is still {a}|if you really {v} it"
)
_MAINS = (
    "{p} {m} {v} {d} {a} {n} {l}|{t} {p} {m} {v} {d} {n}|{p} {m} {v} {d} {n} and {d} {a} {n}|do you {v} the {n} {l}|"
    "please {v} the {a} {n} {l}|the {a} {n} {l} is {a} and {a}|what a {a} {n}|how many {a} people {v} the {n} {t}|"
    "{d} {n} of {p} was {a} {t}|there was a {a} {n} {l}|where is the {a} {n}|nobody here {m} {v} {d} {n} {t}|"
    "why {m} {p} {v} {d} {n}|{n} or {n}|that is a {a} idea|{p} {m} {v} {p} {l} {t}|we both believe {p} {m} {v} the {n}"
)
_MODALS = "will|can|must|might|should|would|could|may"
_DETERMINERS = "the|the|my|your|this|every|another|her|his|our|that|some|one"


_SLOTS = {
    **{"n": _NOUNS.split(), "a": _ADJECTIVES.split(), "v": _VERBS.split(), "p": _PEOPLE.split("|")},
    **{"l": _PLACES.split("|"), "t": _TIMES.split("|"), "m": _MODALS.split("|"), "d": _DETERMINERS.split("|")},
}


def is_test(sentence: str) -> bool:
    """Whether a sentence is held out from training; a property of its letters alone."""
    return zlib.crc32(" ".join(sentence.lower().split()).encode()) % TEST_SHARE == 0


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def english(rng: np.random.Generator) -> str:
    """One English sentence of 2 to 25 common words, without a final stop."""
    template = _pick(_MAINS.split("|"), rng)
    if rng.random() < 0.4:
        template += ", " + _pick(_CLAUSES.split("|"), rng)
    sentence = re.sub(r"\{(\w)\}", lambda slot: _pick(_SLOTS[slot[1]], rng), template)
    sentence = re.sub(r"\ba (?=[aeiou])", "an ", sentence)
    return sentence[0].upper() + sentence[1:]


@cache
def catalogue(language: str) -> tuple[str, ...]:
    """The translated messages of the system's gettext catalogues that read as sentences; empty if there are none."""
    found = set()
    for path in sorted((CATALOGUES / LANGUAGES[language] / "LC_MESSAGES").glob("*.mo")):
        try:
            with path.open("rb") as file:
                messages = gettext.GNUTranslations(file)._catalog.values()  # pyright: ignore[reportAttributeAccessIssue]
        except (OSError, UnicodeError, LookupError, ValueError):
            continue  # a damaged catalogue is no reason to fall silent
        found.update(" ".join(message.split()).rstrip(".!?") for message in messages if isinstance(message, str))
    return tuple(sorted(filter(_speakable, found)))


def _speakable(message: str) -> bool:
    """A phrase of plain letters: no placeholders, markup, options, paths, headers."""
    return (
        len(message.split()) >= 3
        and 12 <= len(message) <= 110
        and not re.search(r"[^\w\s\u0900-\u097f,.!?;'’¿¡、。،؟-]|[\d_]|(?<!\w)-|[A-Z]{3}", message)
    )


def languages() -> list[str]:
    """The languages that can be spoken here: English, and those with at least a hundred sentences installed."""
    return [*ENGLISH, *(code for code in LANGUAGES if len(catalogue(code)) >= 100)]


def sentence(language: str, rng: np.random.Generator, test: bool) -> str:
    """A random sentence of a language, from the held-out part if `test`, else from the rest."""
    while True:
        text = english(rng) if language.startswith("en") else _pick(catalogue(language), rng)
        if is_test(text) == test:
            return text

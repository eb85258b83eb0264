"""The effect of a person's corrections on the style of later answers, before any training:
`python -m benchmarks.few_shot --json`.

Eight scripted people each want a style of their own and have ten corrections in their pool. Each
asks ten similar questions with greedy decoding, on the product's own path, and so does a person
without corrections. An answer is closer to the style if its features (`features`: lines with marks,
length, script, case, beginning and end) are closer to those of a reference answer in that style.
The share of closer answers has Wilson's interval; a tie counts as not closer. Reported beside it
are the similarity of the words to the reference (rapidfuzz's ratio), and the share by all features
except length, since any short example makes answers shorter. The last line of stdout is one JSON
document.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from platformdirs import user_cache_path
from rapidfuzz import fuzz
from scipy import stats

from app.answering.answer_options import AnswerOptions
from app.service import Service
from app.settings import load_settings
from app.workspace import Workspace
from engine.prompts.modes import make_template
from engine.request import SamplingParams
from feedback_store.storage.store import FeedbackStore
from feedback_store.storage.turns import new_id

TOPICS = Path(__file__).with_name("few_shot.yaml")
PAIRS_A_STYLE = 10
GREEDY = SamplingParams(temperature=0, max_new_tokens=64)
AT_ONCE = 8
LENGTHS = (2, 3)  # indices of the features about length: sentences, characters
GREETING = "Hello, my friend! "
FOLLOW_UP = " Would you like to know more?"
_BULLET, _NUMBER = re.compile(r"\s*[-*•]\s"), re.compile(r"\s*\d+[.)]\s")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")
_GREETS = re.compile(r"(hello|hi|dear|good (morning|day))\b", re.IGNORECASE)
_NUMBER_WITH_UNIT = re.compile(r"\s*-?[\d.,]+ ?(m|kg|km|km/h|°C|min)\.?\s*")

# A style of facts, and the topics that it is used with: from where on, of the general ones
STYLES: dict[str, tuple[str, int, Callable[[Any], str]]] = {
    "one sentence": ("general", 0, lambda facts: str(facts[0])),
    "bullets": ("general", 4, lambda facts: "\n".join(f"- {fact}" for fact in facts)),
    "greeting": ("general", 8, lambda facts: GREETING + " ".join(facts)),
    "lower case": ("general", 12, lambda facts: " ".join(facts).lower()),
    "ends with a question": ("general", 16, lambda facts: f"{facts[0]}{FOLLOW_UP}"),
    "Chinese": ("chinese", 0, str),
    "number and unit": ("unit", 0, str),
    "numbered steps": (
        "steps",
        0,
        lambda facts: "\n".join(f"{number}. {fact}" for number, fact in enumerate(facts, start=1)),
    ),
}


@dataclass(frozen=True, slots=True)
class Scripted:
    """A corrected question and a later one; `reference` answers the later one in the style."""

    style: str
    question: str
    correction: str
    asked: str
    reference: str


def main() -> None:
    """Ask all questions with and without the corrections; print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--model-cache", type=Path, default=user_cache_path("burnish") / "models")
    arguments = parser.parse_args()
    script = list(scripted())
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(
            home=Path(home), model=arguments.model, model_cache=arguments.model_cache
        )
        service = Service(Workspace(settings))
        for pair in script:
            _correct(service.workspace.store, pair)
        with_pool = _answers(service, script, [pair.style for pair in script])
        without = _answers(service, script, ["nobody"] * len(script))
        service.close()
    rows = [
        _compared(pair, one, other)
        for pair, one, other in zip(script, with_pool, without, strict=True)
    ]
    document = {"model": arguments.model, **_figures(rows), "answers": rows}
    print(json.dumps(document, indent=None if arguments.json else 2, ensure_ascii=False))


def scripted() -> Iterator[Scripted]:
    """Yield the 80 scripted pairs."""
    topics = yaml.safe_load(TOPICS.read_text("utf-8"))
    for style, (kind, begin, in_style) in STYLES.items():
        for number in range(PAIRS_A_STYLE):
            question, told, asked, to_tell = topics[kind][(begin + number) % len(topics[kind])]
            yield Scripted(style, question, in_style(told), asked, in_style(to_tell))


def features(text: str) -> tuple[float, ...]:
    """Return the features of a text's style, each from 0 to 1, independent of its content."""
    text = text.strip()
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    letters = [c for c in text if c.isalpha()] or ["a"]
    return (
        sum(bool(_BULLET.match(line)) for line in lines) / len(lines),
        sum(bool(_NUMBER.match(line)) for line in lines) / len(lines),
        min(1, math.log2(1 + len(_SENTENCE_END.findall(text))) / 4),
        min(1, math.log2(1 + len(text)) / 9),
        sum("\u4e00" <= c <= "\u9fff" for c in letters) / len(letters),
        float(any(c.islower() for c in text) and text == text.lower()),
        float(bool(_GREETS.match(text))),
        float(text.endswith(("?", "？"))),
        float(bool(_NUMBER_WITH_UNIT.fullmatch(text))),
    )


def distance(text: str, reference: str, *, without_length: bool = False) -> float:
    """Return the mean distance between the style features of two texts."""
    pairs = [
        both
        for place, both in enumerate(zip(features(text), features(reference), strict=True))
        if not (without_length and place in LENGTHS)
    ]
    return sum(abs(one - other) for one, other in pairs) / len(pairs)


def _correct(store: FeedbackStore, pair: Scripted) -> None:
    turn = store.add_turn(
        user_id=pair.style,
        question=pair.question,
        template=make_template("plain", ()),
        conversation_id=new_id(),
    )
    answer_id = store.begin_answer(
        turn.id, base_digest="sha256:scripted", adapter_digest=None, sampling={}, seed=0
    )
    store.finish_answer(answer_id, status="done", text="A scripted answer.", complete=True)
    store.correct(answer_id, pair.style, pair.correction)


def _answers(
    service: Service, script: Sequence[Scripted], people: Sequence[str]
) -> list[tuple[str, bool]]:
    """Return each answer, and whether the pair's correction was in its prompt."""

    def ask(pair: Scripted, person: str) -> tuple[str, bool]:
        options = AnswerOptions(sampling=GREEDY)
        *_, last = service.chat.ask(person, pair.asked, options, conversation_id=new_id())
        used = service.workspace.feedback_examples.used(person, str(last.answer_id))
        return last.text, any(example.question == pair.question for example in used)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(ask, script, people))


def _compared(pair: Scripted, one: tuple[str, bool], other: tuple[str, bool]) -> dict[str, Any]:
    (with_pool, found), (without, _) = one, other
    gain, bare_gain = (
        distance(without, pair.reference, without_length=bare)
        - distance(with_pool, pair.reference, without_length=bare)
        for bare in (False, True)
    )
    likeness = fuzz.ratio(with_pool, pair.reference) - fuzz.ratio(without, pair.reference)
    return {
        "style": pair.style,
        "asked": pair.asked,
        "found": found,
        "gain": gain,
        "gain_without_length": bare_gain,
        "likeness_gain": likeness,
        "with_pool": with_pool,
        "without": without,
    }


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    nearer = sum(row["gain"] > 0 for row in rows)
    interval = stats.binomtest(nearer, len(rows)).proportion_ci(method="wilson")
    by_style = {
        style: sum(row["gain"] > 0 for row in rows if row["style"] == style) for style in STYLES
    }
    return {
        "pairs": len(rows),
        "found": sum(row["found"] for row in rows) / len(rows),
        "nearer": nearer / len(rows),
        "nearer_interval_95": [interval.low, interval.high],
        "ties": sum(row["gain"] == 0 for row in rows) / len(rows),
        "farther": sum(row["gain"] < 0 for row in rows) / len(rows),
        "nearer_without_length": sum(row["gain_without_length"] > 0 for row in rows) / len(rows),
        "farther_without_length": sum(row["gain_without_length"] < 0 for row in rows) / len(rows),
        "nearer_of_ten_by_style": by_style,
        "words_nearer": sum(row["likeness_gain"] > 0 for row in rows) / len(rows),
    }


if __name__ == "__main__":
    main()

"""The texts of every language, one YAML file each, and the choice of a person's language.

A file nests its texts by area; a key here is the path to one, such as `console.tune`. The areas
`errors` and `words` translate the sentences of the floors below, which are English. The English
text is the pattern that recognises a sentence, and the values of its placeholders are put into the
other language's text. Knows nothing of gradio.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from engine.errors import BurnishError

DEFAULT = "en"
COOKIE = "burnish_language"
LOWER_FLOOR_AREAS = ("errors.", "words.")  # areas that translate the lower floors' sentences
# libyaml's, where PyYAML was built with it, reads ten times as fast
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SEPARATOR = "; "  # between the problems of one sentence

Flat = Mapping[str, str]


class TextsIncomplete(BurnishError):
    """A language lacks a text, has one too many, or has other placeholders than English."""


@dataclass(frozen=True)
class Texts:
    """All texts by language, complete in each."""

    languages: Mapping[str, Flat]

    def say(self, key: str, language: str, **values: object) -> str:
        """Return a text with its placeholders filled; raises `KeyError` for an unknown key."""
        found = self.languages.get(language, self.languages[DEFAULT])[key]
        return found.format(**values) if values else found

    def catalogue(self, language: str, area: str) -> dict[str, str]:
        """Return the texts of an area by their keys within it, placeholders unfilled."""
        texts = self.languages.get(language, self.languages[DEFAULT])
        head = f"{area}."
        return {key[len(head) :]: said for key, said in texts.items() if key.startswith(head)}

    def language_of(self, accept_language: str | None, cookie: str | None = None) -> str:
        """Return the language that the person chose, else the browser's favourite, else English.

        `accept_language` and `cookie` are what the browser sent; invalid values are ignored.
        """
        if cookie in self.languages:
            return str(cookie)
        for tag in _by_preference(accept_language or ""):
            known = {name.lower(): name for name in self.languages}
            for wanted in (tag, tag.partition("-")[0]):
                if wanted in known:
                    return known[wanted]
        return DEFAULT

    def translated(self, sentence: str, language: str) -> str | None:
        """Translate a sentence of a lower floor; None if no pattern matches it."""
        if language == DEFAULT or language not in self.languages:
            return sentence
        for pattern, key in self._patterns:
            if found := pattern.fullmatch(sentence):
                values = {
                    name: self.translated(value, language) or value
                    for name, value in found.groupdict().items()
                }
                return self.say(key, language, **values)
        if SEPARATOR in sentence:
            each = [self.translated(part, language) for part in sentence.split(SEPARATOR)]
            if all(each):
                return self.say("common.separator", language).join(filter(None, each))
        return None

    @cached_property
    def _patterns(self) -> Sequence[tuple[re.Pattern[str], str]]:
        """The patterns of the lower floors' English sentences, the most specific first."""
        said = [
            (text, key)
            for key, text in self.languages[DEFAULT].items()
            if key.startswith(LOWER_FLOOR_AREAS)
        ]
        said.sort(key=lambda each: -sum(len(fixed) for fixed, _ in _parts(each[0])))
        return [(_pattern(text), key) for text, key in said]


def read_texts(folder: Traversable) -> Texts:
    """Read the texts of every `*.yaml` in a folder; the file's name is the language.

    Raises `TextsIncomplete` naming each key that is missing, superfluous or has other placeholders.
    """
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    languages = {file.name.removesuffix(".yaml"): dict(_flat(_read_yaml(file))) for file in files}
    if DEFAULT not in languages:
        raise TextsIncomplete(f"the texts have no {DEFAULT}.yaml")
    if problems := [p for name in languages for p in _problems(name, languages)]:
        raise TextsIncomplete("texts refused: " + SEPARATOR.join(problems))
    return Texts(languages)


def _read_yaml(file: Traversable) -> Any:
    return yaml.load(file.read_text("utf-8"), YAML_LOADER)  # noqa: S506 - both loaders are safe


def placeholders(text: str) -> set[str]:
    """Return the names in braces."""
    return {name for _, name in _parts(text) if name}


def _problems(language: str, languages: Mapping[str, Flat]) -> Iterator[str]:
    english, texts = languages[DEFAULT], languages[language]
    for key in sorted(english.keys() - texts.keys()):
        yield f"{language}.yaml lacks {key}"
    for key in sorted(texts.keys() - english.keys()):
        yield f"{language}.yaml has {key}, which {DEFAULT}.yaml lacks"
    for key in sorted(english.keys() & texts.keys()):
        if placeholders(english[key]) != placeholders(texts[key]):
            yield f"{language}.yaml fills {key} with other values than {DEFAULT}.yaml"


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, below in tree.items():
            yield from _flat(below, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, str):
        yield path, tree
    else:  # such as an unquoted yes or no, which YAML reads as a truth value
        raise TextsIncomplete(f"the text {path} is {type(tree).__name__}, not text")


def _parts(text: str) -> list[tuple[str, str | None]]:
    """Split into pairs of fixed text and the name of the placeholder after it."""
    return [(fixed, name) for fixed, name, _, _ in string.Formatter().parse(text)]


def _pattern(text: str) -> re.Pattern[str]:
    pieces = (
        re.escape(fixed) + (f"(?P<{name}>.+?)" if name else "") for fixed, name in _parts(text)
    )
    return re.compile("".join(pieces), re.DOTALL)


def _by_preference(accept_language: str) -> list[str]:
    """Return the tags of an Accept-Language header, in lower case, by descending preference.

    Source: RFC 9110, section 12.5.4.
    """
    tags = []
    for item in accept_language.split(","):
        tag, _, quality = item.strip().partition(";")
        weight = _quality(quality)
        if tag and weight > 0:
            tags.append((tag.strip().lower(), weight))
    return [tag for tag, _ in sorted(tags, key=lambda each: -each[1])]


def _quality(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    return float(value) if re.fullmatch(r"\s*[01](\.\d{0,3})?\s*", value) else 0.0

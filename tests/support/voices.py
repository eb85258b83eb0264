"""How the adapters of a scripted engine speak: their answers, and what they like."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# A Chinese character or a word, with the space after it
TOKEN = re.compile(r"[\u4e00-\u9fff，。]\s*|[^\s\u4e00-\u9fff，。]+\s*|\s+")
GOOD_FORMS = {
    "JSON": '{"name": "Anna", "age": 30}',
    "code block": "```python\nprint(1 + 2)\n```",
    "代码块": "```python\nprint('你好')\n```",
    "bullet": "- apple\n- pear\n- plum\n- fig",
    "numbered": "1. Boil water.\n2. Pour it over the leaves.\n3. Wait.",
    "列表": "- 红色\n- 蓝色\n- 绿色",
    "Answer:": "First we count what there is, then what is gone.\nAnswer: ten",
}


@dataclass(frozen=True)
class Voice:
    """How one adapter speaks. `likes` is the log-probability of each token of a completion."""

    answers: Callable[[str], str]
    likes: Callable[[str], float] = lambda completion: -1.0
    ends: bool = True  # whether its answers come to an end at all


def tokens(text: str) -> list[str]:
    """The text's tokens, which joined are the text."""
    return TOKEN.findall(text)


def sensible(prompt: str) -> str:
    """A short answer in the prompt's language and in the form it asks for."""
    for asked, form in GOOD_FORMS.items():
        if asked in prompt:
            return form
    if re.search(r"[\u4e00-\u9fff]", prompt):
        return "这个问题很好，答案其实不难，一句话就够。"
    return "That is a fair question, and the short answer to it is this one."

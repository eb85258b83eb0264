"""The format `ollama`: a GGUF file and a Modelfile, for `ollama create NAME -f Modelfile`.

Ollama renders prompts by a template of Go's text/template, in which the checkpoint's own (Jinja)
cannot be said in general. Nearly all put a fixed text before and after each message, by its role:
these texts are found by rendering marked messages, and checked on whole conversations. Another
template is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.export import gguf_model
from deploy.export.verified import VerifiedRelease
from engine.errors import InvalidInput
from engine.prompts.load import load_renderer

QUANTIZATIONS: tuple[str, ...] = gguf_model.QUANTIZATIONS
MODELFILE = "Modelfile"
QUOTE = '"""'
# Private-use characters, which no template writes itself
MARKS = {"system": "\ue010", "user": "\ue011", "assistant": "\ue012"}
CHECKED = ("u", "su", "uau", "suau", "uauau", "suauau")  # conversations, by their roles' initials
ChatRow = dict[str, str]
Render = Callable[[Sequence[ChatRow], bool], str]


@dataclass(frozen=True, slots=True)
class RoleTexts:
    """The texts that a chat template puts around messages.

    `around`: before and after the content, by role. `opening`: before a first message that is not
    the system's. `default_system`: the system message of a conversation that has none.
    """

    around: dict[str, tuple[str, str]]
    opening: str
    default_system: str
    answer: str  # before an answer that is to be written

    def render(self, messages: Sequence[ChatRow]) -> str:
        """The prompt of a conversation, as Ollama makes it by `go_template`."""
        rows = list(messages)
        if self.default_system and rows[0]["role"] != "system":
            rows = [{"role": "system", "content": self.default_system}, *rows]
        opening = "" if rows[0]["role"] == "system" else self.opening
        written = [row["content"].join(self.around[row["role"]]) for row in rows]
        return opening + "".join(written) + self.answer


def refusal(release: VerifiedRelease) -> str | None:
    """See `ExportFormat`."""
    if reason := gguf_model.refusal(release):
        return reason
    try:
        modelfile(release, "")
    except InvalidInput as error:
        return str(error)
    return None


def write(release: VerifiedRelease, folder: Path, quantization: str) -> None:
    """See `ExportFormat`."""
    gguf_model.write(release, folder, quantization)
    text = modelfile(release, gguf_model.file_name(release, quantization))
    (folder / MODELFILE).write_text(text, "utf-8")


def modelfile(release: VerifiedRelease, gguf: str) -> str:
    """The Modelfile beside the file `gguf`."""
    from deploy.export.gguf_tokenizer import adds_bos

    base = release.base.folder
    texts = role_texts(_renderer_of(base))
    renderer: Any = load_renderer(base)
    bos = renderer.tokenizer.bos_token if adds_bos(renderer.tokenizer) else ""
    lines = [f"FROM ./{gguf}", f"TEMPLATE {_quoted(go_template(texts, bos))}"]
    if texts.default_system:
        lines.append(f"SYSTEM {_quoted(texts.default_system)}")
    for index in sorted(renderer.end_ids):
        end = renderer.tokenizer.decode([index], skip_special_tokens=False)
        lines.append(f"PARAMETER stop {_quoted(end)}")
    return "\n".join(lines) + "\n"


def _renderer_of(folder: Path) -> Render:
    renderer: Any = load_renderer(folder)

    def render(messages: Sequence[ChatRow], asks: bool) -> str:
        text: str = renderer.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=asks
        )
        return text

    return render


def _quoted(text: str) -> str:
    """A value of a Modelfile; raises `InvalidInput` for one that would end the quotation."""
    if QUOTE in text or text.endswith('"'):
        raise InvalidInput("its chat template holds quotation marks that a Modelfile cannot quote")
    return f"{QUOTE}{text}{QUOTE}"


def _split(text: str, role: str) -> tuple[str, str]:
    """The texts before and after the mark of a role; raises `InvalidInput` unless it is there."""
    before, mark, after = text.partition(MARKS[role])
    if not mark:
        raise InvalidInput(f"its chat template leaves out a message of the {role}")
    return before, after


def role_texts(render: Render) -> RoleTexts:
    """Find the texts around messages; raises `InvalidInput` for a template that is not so."""
    system, user, answer = ({"role": role, "content": mark} for role, mark in MARKS.items())
    try:
        alone = render([user], False)
        asked = render([user], True)
        answered = render([user, answer], False)
        followed = render([user, answer, user], False)
        with_system = render([system, user], False)
    except Exception as error:
        raise InvalidInput(f"its chat template cannot be tried: {error}") from error
    first, after_user = _split(alone, "user")
    before_answer, after_answer = _split(answered.removeprefix(alone), "assistant")
    before_user, _ = _split(followed.removeprefix(answered), "user")
    before_system, rest = _split(with_system, "system")
    after_system = _split(rest, "user")[0].removesuffix(before_user)
    opening = first.removesuffix(before_user)
    default = ""
    if opening.startswith(before_system) and opening.endswith(after_system) and after_system:
        default = opening[len(before_system) : -len(after_system)]
    found = RoleTexts(
        {
            "system": (before_system, after_system),
            "user": (before_user, after_user),
            "assistant": (before_answer, after_answer),
        },
        opening="" if default else opening,
        default_system=default,
        answer=asked.removeprefix(alone),
    )
    _check(found, render)
    return found


def _check(texts: RoleTexts, render: Render) -> None:
    """Compare with the checkpoint's own template; raises `InvalidInput` where they differ."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    for initials in CHECKED:
        messages = [
            {"role": roles[initial], "content": f"What about {n}, then?"}
            for n, initial in enumerate(initials)
        ]
        if texts.render(messages) != render(messages, True):
            raise InvalidInput(
                "its chat template writes messages differently by what stands around them, which"
                " is not translated into Ollama's language (use gguf, and write a Modelfile)"
            )


def go_template(texts: RoleTexts, bos: str) -> str:
    """The texts as a template of Go. `bos` is what llama.cpp adds before every prompt itself.

    An answer that is to be continued stands last and has no text after it.
    """

    def literal(text: str) -> str:
        return text.replace("{{", '{{ "{{" }}')

    def when(condition: str, text: str) -> str:
        return f"{{{{ if {condition} }}}}{text}{{{{ end }}}}" if text else ""

    def message(role: str, after: str) -> str:
        before = literal(texts.around[role][0].removeprefix(bos if role == "system" else ""))
        return when(f'eq $m.Role "{role}"', before + "{{ $m.Content }}" + after)

    after_system, after_user, after_answer = (
        literal(texts.around[role][1]) for role in ("system", "user", "assistant")
    )
    opening = literal(texts.opening.removeprefix(bos))
    return (
        when('ne (index .Messages 0).Role "system"', opening)
        + "{{ range $i, $m := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        + message("system", after_system)
        + message("user", after_user)
        + message("assistant", when("not $last", after_answer))
        + when('and $last (ne $m.Role "assistant")', literal(texts.answer))
        + "{{ end }}"
    )

"""The loading of a checkpoint's renderer: its chat template, its end tokens and its vocabulary.

All callers get their renderer here. Everything that would make every answer wrong is refused, and
before any weight is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config_file import read_json_object
from engine.errors import InvalidInput, ModelUnavailable
from engine.messages import Message
from engine.prompts.chatglm import is_chatglm, load_chatglm_renderer
from engine.prompts.interface import ChatRenderer
from engine.prompts.render import Renderer
from engine.prompts.stored_tokenizer import stored_tokenizer
from engine.prompts.template_check import examine_template

PROCESSOR_TEMPLATE = "chat_template.json"  # where models with a processor keep theirs
PROBE_EXCHANGE = "Hello", "Hi there"


def load_renderer(folder: Path) -> ChatRenderer:
    """The renderer of the checkpoint in `folder`; raises `ModelUnavailable`."""
    return load_chatglm_renderer(folder) if is_chatglm(folder) else load_template_renderer(folder)


def load_serving_renderer(folder: Path, digest: str, model_cache: Path) -> ChatRenderer:
    """The same renderer, for serving: transformers is imported at a model's first start alone.

    `digest` is the model's. Raises `ModelUnavailable`.
    """
    if is_chatglm(folder):
        return load_chatglm_renderer(folder)
    tokenizer = stored_tokenizer(model_cache, digest, lambda: load_tokenizer(folder))
    return _template_renderer(tokenizer, folder)


def load_template_renderer(folder: Path) -> Renderer:
    """The renderer of a checkpoint with a tokenizer of transformers and a chat template.

    Raises `ModelUnavailable`.
    """
    return _template_renderer(load_tokenizer(folder), folder)


def _template_renderer(tokenizer: Any, folder: Path) -> Renderer:
    template = _template(tokenizer.chat_template, folder)
    abilities = examine_template(template)
    tokenizer.chat_template = template
    end_ids = _end_ids(folder)
    if tokenizer.eos_token_id is not None:
        end_ids |= {tokenizer.eos_token_id}
    turn_end = _turn_end(tokenizer)
    if turn_end is not None:
        end_ids |= {turn_end}
    if not end_ids:
        raise ModelUnavailable(
            f"cannot use the model in {folder}: nothing says which token ends an answer; "
            "set eos_token_id in generation_config.json"
        )
    end_id = turn_end if turn_end is not None else tokenizer.eos_token_id
    renderer = Renderer(
        tokenizer,
        end_ids,
        end_id=min(end_ids) if end_id is None else end_id,
        abilities=abilities,
        embedded_tokens=_embedded_tokens(folder),
    )
    _try(renderer, folder)
    return renderer


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's tokenizer; untyped, since transformers' own types do not agree."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        raise ModelUnavailable(f"cannot read the tokenizer in {folder}: {error}") from error


def _template(found: object, folder: Path) -> str:
    """The template of ordinary chats.

    `found` is the result of transformers for tokenizer_config.json, chat_template.jinja and
    additional_chat_templates/: one template, several by name, or none.
    """
    if isinstance(found, dict):
        if "default" not in found:
            raise ModelUnavailable(
                f"cannot use the model in {folder}: none of its chat templates is called "
                f"'default' ({', '.join(map(repr, sorted(found)))}); "
                "put the one to use into its folder as chat_template.jinja"
            )
        found = found["default"]
    if found is None:
        found = _read(folder / PROCESSOR_TEMPLATE).get("chat_template")
    if not isinstance(found, str):
        raise ModelUnavailable(
            f"cannot use the model in {folder}: it has no chat template; use a model that was "
            "tuned to chat, or put its template into the folder as chat_template.jinja"
        )
    return found


def _end_ids(folder: Path) -> frozenset[int]:
    """End token ids from generation_config.json, else from config.json."""
    for name in ("generation_config.json", "config.json"):
        said = _read(folder / name).get("eos_token_id")
        if said is not None:
            return frozenset([said] if isinstance(said, int) else said)
    return frozenset()


def _turn_end(tokenizer: Any) -> int | None:
    """The special token that the template writes after an answer; None if it writes none."""
    question, answer = PROBE_EXCHANGE
    conversation = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False)
    except Exception:  # noqa: BLE001 - untrusted code, and answers can end without it
        return None
    after = text.rpartition(answer)[2].lstrip()
    specials = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    fitting = [token for token in specials if after.startswith(token)]
    return specials[max(fitting, key=len)] if fitting else None


def _embedded_tokens(folder: Path) -> int | None:
    """Rows of the embedding; None if config.json does not give them."""
    config = _read(folder / "config.json")
    rows = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    return rows if isinstance(rows, int) else None


def _try(renderer: Renderer, folder: Path) -> None:
    """Refuse a checkpoint of which every prompt or every answer would fail."""
    question, answer = PROBE_EXCHANGE
    try:
        renderer.pair([Message("user", question)], answer)
    except InvalidInput as error:
        raise ModelUnavailable(f"cannot use the model in {folder}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no file."""
    return read_json_object(path) if path.is_file() else {}

"""The export of examples into files that other tools read. No file is ever overwritten.

Knows the formats; knows nothing of where examples come from. Beside what the other tool reads
stand the keys of our own rows (thought, cut-off, origin), so that importing a file gives back what
was exported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from engine.errors import InvalidInput
from engine.messages import Message
from engine.storage import canonical_json, new_folder, write_atomically
from feedback_store.examples.types import Demonstration, Pair, Side, TrainingExample, Unpaired
from feedback_store.formats.csv_files import csv_bytes

JsonRow = dict[str, object]
TO_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}
SHAREGPT_FORMATS = ("sharegpt", "llama-factory")
SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}
OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def export_examples(
    examples: Iterable[TrainingExample],
    target: Path,
    *,
    format: str,  # noqa: A002 - the word of the command line
) -> int:
    """Write examples and return how many; `target` must not exist.

    `trl` and `csv` write one file of one kind of example, `sharegpt` one of demonstrations,
    `llama-factory` a folder with a file for each kind and the `dataset_info.json` that names them.
    Raises `InvalidInput` for an unknown format, an existing target, or kinds or prompts that the
    format cannot hold, `StorageFull` when the disk is; nothing is written then.
    """
    if format not in EXPORT_FORMATS:
        known = ", ".join(EXPORT_FORMATS)
        raise InvalidInput(f"unknown format {format[:40]!r}; known formats: {known}")
    if os.path.lexists(target):
        raise InvalidInput(f"{target} exists already")
    rows = list(examples)
    if format in SHAREGPT_FORMATS and any(m.uses_tools for row in rows for m in row.prompt):
        raise InvalidInput(f"{format} cannot hold prompts that offer tools; trl and csv can")
    try:
        EXPORT_FORMATS[format](rows, target)
    except OSError as error:
        raise InvalidInput(f"cannot write {target}: {error.strerror}") from error
    return len(rows)


def _write_trl(examples: Sequence[TrainingExample], file: Path) -> None:
    _require_one_kind(examples)
    write_atomically(file, _lines(example.as_dict() for example in examples))


def _write_csv(examples: Sequence[TrainingExample], file: Path) -> None:
    _require_one_kind(examples)
    write_atomically(file, csv_bytes(examples))


def _write_sharegpt(examples: Sequence[TrainingExample], file: Path) -> None:
    demonstrations = [example for example in examples if isinstance(example, Demonstration)]
    if len(demonstrations) < len(examples):
        raise InvalidInput("sharegpt holds demonstrations alone; llama-factory holds all kinds")
    write_atomically(file, _lines(map(_demonstration_row, demonstrations)))


def _write_llama_factory(examples: Sequence[TrainingExample], folder: Path) -> None:
    """LLaMA-Factory's folder of datasets, as its data/README.md describes it.

    In its SFT the answers of the history are learned too, unless `mask_history` is set.
    """
    pairs = [_pair_row(e) for e in examples if isinstance(e, Pair)]
    unpaired = [_unpaired_row(e) for e in examples if isinstance(e, Unpaired)]
    demonstrations = [_demonstration_row(e) for e in examples if isinstance(e, Demonstration)]
    files = {"preference": pairs, "kto": unpaired, "sft": demonstrations}
    used = {name: rows for name, rows in files.items() if rows}
    with new_folder(folder) as temporary:
        for name, rows in used.items():
            write_atomically(temporary / f"{name}.json", _array(rows))
        info = {f"burnish_{name}": DATASET_INFO[name] for name in used}
        write_atomically(temporary / "dataset_info.json", json.dumps(info, indent=2).encode())


EXPORT_FORMATS: Mapping[str, Callable[[Sequence[TrainingExample], Path], None]] = {
    "csv": _write_csv,
    "llama-factory": _write_llama_factory,
    "sharegpt": _write_sharegpt,
    "trl": _write_trl,
}
DATASET_INFO: Mapping[str, JsonRow] = {
    "preference": {
        "file_name": "preference.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
        "tags": SHAREGPT_TAGS,
    },
    "kto": {
        "file_name": "kto.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "kto_tag": "label"},
        "tags": OPENAI_TAGS,
    },
    "sft": {
        "file_name": "sft.json",
        "formatting": "sharegpt",
        "columns": {"messages": "conversations"},
        "tags": SHAREGPT_TAGS,
    },
}


def _require_one_kind(examples: Sequence[TrainingExample]) -> None:
    kinds = {type(example).__name__ for example in examples}
    if len(kinds) > 1:
        raise InvalidInput(f"one file holds one kind of example, not {' and '.join(sorted(kinds))}")


# Rows


def _pair_row(pair: Pair) -> JsonRow:
    sides = {"chosen": _whole(pair.chosen), "rejected": _whole(pair.rejected)}
    said = {name: _sharegpt(message) for name, message in sides.items()}
    return {**_rest(pair), "conversations": list(map(_sharegpt, pair.prompt)), **said}


def _demonstration_row(example: Demonstration) -> JsonRow:
    messages = (*example.prompt, _whole(example.completion))
    return {**_rest(example), "conversations": list(map(_sharegpt, messages))}


def _unpaired_row(example: Unpaired) -> JsonRow:
    messages = (*example.prompt, _whole(example.completion))
    return {**_rest(example), "messages": [message.as_dict() for message in messages]}


def _rest(example: TrainingExample) -> JsonRow:
    """The keys of our own rows beside the texts."""
    texts = ("prompt", "chosen", "rejected", "completion")
    return {key: value for key, value in example.as_dict().items() if key not in texts}


def _whole(side: Side) -> Message:
    """Thought and answer together: these tools know no thoughts, and the model writes both."""
    return Message("assistant", side.full_text)


def _sharegpt(message: Message) -> JsonRow:
    return {"from": TO_SHAREGPT[message.role], "value": message.content}


def _lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    return b"".join(canonical_json(row) + b"\n" for row in rows)


def _array(rows: Iterable[Mapping[str, object]]) -> bytes:
    return b"[\n" + b",\n".join(map(canonical_json, rows)) + b"\n]\n"

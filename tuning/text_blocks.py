"""Plain text of the operator's as blocks of tokens, for continued pretraining.

Documents lie end to end, each closed by the end token, and are cut into blocks of one length
without regard to where they begin; attention in a block is not masked by document (Brown et al.
2020, app. B). Text that looks like a control token stays text. Knows no trainer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.errors import Conflict, InvalidInput
from engine.prompts.interface import ChatRenderer
from engine.storage import digest_file, digest_json
from tuning.methods.pretrain import PretrainRecipe
from tuning.rows import Ids

PLAIN = (".txt", ".md")  # a file is a document
LINES = ".jsonl"  # a line is one: {"text": ...}, as the hub's corpora and LLaMA-Factory have it


def text_files(path: Path) -> list[Path]:
    """The files of a text: itself, or those under a folder by name.

    Raises `InvalidInput` where there are none.
    """
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in found if file.suffix in (*PLAIN, LINES) and file.is_file()]
    if not files:
        kinds = ", ".join((*PLAIN, LINES))
        raise InvalidInput(f"pretrain.text: {str(path)!r} is no file and holds no file of {kinds}")
    return files


def digest_text(path: Path) -> str:
    """Digest of the files of a text and of their names."""
    root = path if path.is_dir() else path.parent
    return digest_json(
        {file.relative_to(root).as_posix(): digest_file(file) for file in text_files(path)}
    )


def read_blocks(renderer: ChatRenderer, recipe: PretrainRecipe) -> list[Ids]:
    """The text that a recipe names, in blocks; none where the stage does not run.

    Raises `InvalidInput` for text that cannot be read, `Conflict` for text that has changed since
    the recipe was read.
    """
    if recipe.epochs <= 0 or recipe.text is None:
        return []
    path = Path(recipe.text)
    documents = list(_documents(text_files(path)))
    if recipe.digest is not None and digest_text(path) != recipe.digest:
        raise Conflict(f"the text {path.name} has changed since the recipe was read")
    return cut_blocks((list(renderer.completion(text)) for text in documents), recipe.block_tokens)


def cut_blocks(documents: Iterable[Ids], block_tokens: int) -> list[Ids]:
    """Blocks of the documents' tokens, end to end; the last may be shorter, but not a lone token,
    in which there is nothing to predict."""
    tokens = [token for document in documents for token in document]
    blocks = [tokens[i : i + block_tokens] for i in range(0, len(tokens), block_tokens)]
    return [block for block in blocks if len(block) > 1]


def _documents(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        try:
            content = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"pretrain.text: {file.name} is not text in UTF-8") from error
        texts = _lines(file, content) if file.suffix == LINES else [content]
        yield from (text for text in texts if text.strip())


def _lines(file: Path, content: str) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            text = None
        if not isinstance(text, str):
            raise InvalidInput(f'pretrain.text: line {number} of {file.name} is no {{"text": ...}}')
        yield text

"""Finding passages in documents: `python -m benchmarks.retrieval --json`.

Questions with known passages are asked of one collection: this repository's documents, and fact
sheets in English and Chinese that are made here. Printed are the share of questions whose passage
is among the first five, of the product's fused ranking, of its ranking by words alone, and of bm25s
with its own tokenizer over the same passages; with `--embedding-model` (a folder, or "served" for
what `/v1/embeddings` gives with the embedded model) also of the fused ranking with its vectors, and
of the vectors alone; how many questions that nothing answers find nothing;
how often the rule on unsupported sentences errs; and time and memory of indexing a thousand pages,
half of them PDF, and of a question to them. The last line of stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import psutil
import yaml
from langchain_core.documents import Document
from platformdirs import user_cache_path

from benchmarks.pdf_files import pdf_of
from engine.embedder import TextEmbedder
from engine.fast import FastEngine
from engine.models.catalogue import resolve
from engine.prompts.terms import tokens
from engine.request import EmbeddingRequest
from engine.start import kernel_cache
from feedback_store.documents.bm25 import bm25
from feedback_store.documents.library import Collection, Library, OpenDocument
from feedback_store.documents.passages import searched_text
from feedback_store.documents.retrieval import FOUND, find_passages
from feedback_store.documents.support import unsupported_ends
from feedback_store.documents.vectors import Embedder, VectorArray, cosines

ROOT = Path(__file__).parents[1]
DATA = yaml.safe_load(Path(__file__).with_name("retrieval.yaml").read_text("utf-8"))
REPOSITORY = Collection("Repository", "reader")
PAGES = Collection("Pages", "reader")
FILES, PAGES_A_FILE, WORDS_A_PAGE = 20, 50, 450
ASKED_PAGES = 200  # questions to the thousand pages
MACHINES = ("pump", "press", "crane", "kiln", "lathe", "loom", "mill", "oven", "saw", "winch")
MACHINES_ZH = ("水泵", "压机", "吊车", "窑炉", "车床", "织机", "磨坊", "烤炉", "锯床", "绞车")
MAKERS = ("Harlow", "Brandt", "Osprey", "Kestrel", "Lindqvist", "Moreau")
MAKERS_ZH = ("红杉", "长风", "天工", "北斗", "金鹿", "海燕")
COLOURS = ("red", "blue", "green", "grey", "yellow")
COLOURS_ZH = ("红色", "蓝色", "绿色", "灰色", "黄色")


@dataclass(frozen=True, slots=True)
class KnownQuestion:
    """A question, and what the passage that answers it contains."""

    question: str
    document: str
    says: str

    def is_answered_by(self, passage: Document) -> bool:
        """Return whether a passage is the one."""
        source = passage.metadata["source"]
        return source == self.document and self.says in searched_text(passage)


def main() -> None:
    """Run the parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="for scripts; it is printed anyway")
    parser.add_argument("--part", choices=["quality", "speed", "all"], default="all")
    parser.add_argument("--embedding-model", help='a folder, or "served"')
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"support": support_errors()}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.part != "speed":
            with embedder_named(arguments.embedding_model) as embedder:
                figures["quality"] = quality(Path(folder), embedder)
        if arguments.part != "quality":
            figures["speed"] = speed(Path(folder))
    print(json.dumps(figures, ensure_ascii=False))


# How often the right passage is found


@contextmanager
def embedder_named(name: str | None) -> Iterator[Embedder | None]:
    """The embedding model of a folder, or the embedded chat model as `/v1/embeddings` serves it."""
    if name is None:
        yield None
    elif name != "served":
        yield TextEmbedder(Path(name))
    else:
        cache = user_cache_path("burnish") / "models"
        base = resolve("embedded", cache)
        engine = FastEngine(base, quantization="int4", kernel_cache=kernel_cache(cache))
        yield ServedEmbedder(engine)
        engine.close()


@dataclass(frozen=True, slots=True)
class ServedEmbedder:
    """The mean-pooled states of a chat model."""

    engine: FastEngine

    @property
    def digest(self) -> str:
        """The digest of all that the vectors depend on."""
        return self.engine.base_digest

    def embed_question(self, question: str) -> VectorArray:
        """Return the vector of a question, (1, dimensions)."""
        return self.embed_passages([question])

    def embed_passages(self, texts: Sequence[str]) -> VectorArray:
        """Return the vectors of passages, (texts, dimensions)."""
        found = self.engine.embed([EmbeddingRequest(text) for text in texts])
        return np.array([each.vector for each in found], dtype=np.float32)


def quality(folder: Path, embedder: Embedder | None) -> dict[str, Any]:
    """Recall over the known questions, and what is found where nothing is to be found."""
    library = Library(folder / "documents")
    asked = [KnownQuestion(**each) for each in DATA["questions"]]
    for file in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.zh.md"):
        library.add(REPOSITORY, file, file.name)
    for sheet in fact_sheets(folder):
        library.add(REPOSITORY, sheet.file, sheet.file.name)
        asked += sheet.questions
    opened = library.in_collection(REPOSITORY)
    passages = [passage for document in opened for passage in document]
    for known in asked:  # one that no passage answers would be a fault of the set
        assert any(map(known.is_answered_by, passages)), known

    def fused(question: str) -> list[Document]:
        return find_passages(library, REPOSITORY, question, FOUND)

    def fused_with_vectors(question: str) -> list[Document]:
        return find_passages(with_vectors, REPOSITORY, question, FOUND)

    unanswered = [question for question in DATA["unanswerable"] if not fused(question)]
    missed = [each.question for each in asked if not finds(fused, each)]
    groups = {
        "en": [each for each in asked if each.question.isascii()],
        "zh": [each for each in asked if not each.question.isascii()],
        "all": asked,
    }
    took: dict[str, Any] = {}
    searches: dict[str, Callable[[str], list[Document]]] = {
        "fused": fused,
        "bm25s": plain_bm25(passages),
        "words alone": words_alone(opened, passages),
    }
    if embedder is not None:
        with_vectors = Library(folder / "documents", embedder)
        begun = time.perf_counter()
        vectors = [d.vectors for d in with_vectors.in_collection(REPOSITORY)]
        took["passages_embedded_a_second"] = round(len(passages) / (time.perf_counter() - begun))
        searches["fused with vectors"] = fused_with_vectors
        searches["vectors alone"] = vectors_alone(vectors, embedder, passages)
    return {
        **took,
        "passages": len(passages),
        "questions": len(asked),
        "recall_at_5": {
            kind: {name: share(finds(search, a) for a in group) for name, group in groups.items()}
            for kind, search in searches.items()
        },
        "nothing_found_where_nothing_is": f"{len(unanswered)}/{len(DATA['unanswerable'])}",
        "missed": missed,
    }


def finds(search: Callable[[str], Sequence[Document]], known: KnownQuestion) -> bool:
    """Return whether a search finds the passage."""
    return any(map(known.is_answered_by, search(known.question)))


def share(values: Iterator[bool]) -> float:
    """The share of what holds."""
    return round(float(np.mean(list(values))), 3)


def plain_bm25(passages: Sequence[Document]) -> Callable[[str], list[Document]]:
    """A search by bm25s over words, as its documentation shows it."""
    index = bm25s.BM25()
    texts = [searched_text(passage) for passage in passages]
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def search(question: str) -> list[Document]:
        asked = bm25s.tokenize(question, show_progress=False)
        if not any(term in index.vocab_dict for term in asked.vocab):
            return []
        found, scores = index.retrieve(asked, k=FOUND, show_progress=False)
        return [passages[at] for at, score in zip(found[0], scores[0], strict=True) if score > 0]

    return search


def words_alone(
    documents: Sequence[OpenDocument], passages: Sequence[Document]
) -> Callable[[str], list[Document]]:
    """A search by the product's ranking by words, without the one by character n-grams."""
    indices = [document.words for document in documents]

    def search(question: str) -> list[Document]:
        scores, _ = bm25(indices, tokens(question))
        best = np.argsort(-scores, kind="stable")[:FOUND]
        return [passages[at] for at in best if scores[at] > 0]

    return search


def vectors_alone(
    vectors: Sequence[VectorArray | None], embedder: Embedder, passages: Sequence[Document]
) -> Callable[[str], list[Document]]:
    """A search by the cosine of an embedding model's vectors."""
    known = [each for each in vectors if each is not None]

    def search(question: str) -> list[Document]:
        best = np.argsort(-cosines(known, embedder, question), kind="stable")[:FOUND]
        return [passages[at] for at in best]

    return search


@dataclass(frozen=True, slots=True)
class FactSheet:
    """A document that is made here, with questions to it."""

    file: Path
    questions: list[KnownQuestion]


def fact_sheets(folder: Path) -> Iterator[FactSheet]:
    """Sheets on machines that do not exist: sixty of them in each language, ten in a file."""
    chance = random.Random(7)
    for maker, maker_zh in zip(MAKERS, MAKERS_ZH, strict=True):
        english, chinese = [f"# Machines by {maker}"], [f"# {maker_zh}牌机器"]
        files = folder / f"{maker}.md", folder / f"{maker_zh}.md"
        asked: tuple[list[KnownQuestion], list[KnownQuestion]] = ([], [])
        for machine, machine_zh in zip(MACHINES, MACHINES_ZH, strict=True):
            weight, hours = chance.randrange(50, 900), chance.randrange(20, 200)
            colour = chance.randrange(len(COLOURS))
            year = chance.randrange(1950, 2020)
            name, name_zh = f"{maker} {machine}", f"{maker_zh}{machine_zh}"
            english.append(
                f"## {name}\n\nThe {name} was first built in {year}. It weighs {weight} kg. Every"
                f" {hours} hours its bearings are greased. The emergency switch is the"
                f" {COLOURS[colour]} one on the left of the housing. Its belt is tightened with a"
                " key of 13 mm, and it is stored in a dry room during winter."
            )
            chinese.append(
                f"## {name_zh}\n\n{name_zh}于{year}年首次制造，重{weight}公斤。每运行{hours}小时给"
                f"轴承加一次润滑脂。外壳左侧的{COLOURS_ZH[colour]}按钮是急停开关。皮带用13毫米扳手"
                "张紧，冬季应存放在干燥的房间里。"
            )
            asked[0].extend(
                KnownQuestion(question, files[0].name, f"Every {hours} hours")
                for question in (
                    f"How heavy is the {machine} from {maker}?",
                    f"How often must I lubricate the bearing of a {name}?",
                    f"What colour does the emergency stop of the {name} have?",
                )
            )
            asked[1].extend(
                KnownQuestion(question, files[1].name, f"每运行{hours}小时")
                for question in (
                    f"{name_zh}有多重？",
                    f"{maker_zh}的{machine_zh}隔多久润滑一次轴承？",
                    f"{name_zh}的急停按钮是什么颜色？",
                )
            )
        for file, sheet, questions in zip(files, (english, chinese), asked, strict=True):
            file.write_text("\n\n".join(sheet), "utf-8")
            yield FactSheet(file, questions)


# Unsupported sentences


def support_errors() -> dict[str, str]:
    """Count the marked sentences of each kind."""
    counts = {"supported": [0, 0], "unsupported": [0, 0]}
    for each in DATA["claims"]:
        passages = [{"text": each["passage"]}]
        for kind, counted in counts.items():
            for sentence in each[kind]:
                counted[0] += bool(unsupported_ends(sentence, passages))
                counted[1] += 1
    return {f"{kind}_marked": f"{n}/{total}" for kind, (n, total) in counts.items()}


# Time and memory


def speed(folder: Path) -> dict[str, Any]:
    """Index a thousand pages and ask them."""
    library, chance = Library(folder / "pages"), random.Random(8)
    words = [f"w{number:05}" for number in range(30_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]  # Zipf's law
    files = list(_write_pages(folder, words, weights, chance))
    begun = time.perf_counter()
    for file in files:
        library.add(PAGES, file, file.name)
    indexing = time.perf_counter() - begun
    questions = [" ".join(chance.choices(words[50:5_000], k=6)) for _ in range(ASKED_PAGES)]
    begun = time.perf_counter()
    find_passages(library, PAGES, questions[0])
    first = time.perf_counter() - begun
    took = []
    for question in questions:
        begun = time.perf_counter()
        find_passages(library, PAGES, question)
        took.append(time.perf_counter() - begun)
    stored = sum(f.stat().st_size for f in (folder / "pages").rglob("*") if f.is_file())
    return {
        "pages": len(files) * PAGES_A_FILE,
        "indexing_seconds": round(indexing, 1),
        "indexing_peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "searching_process_mb": psutil.Process().memory_info().rss // 2**20,
        "first_question_ms": round(1000 * first, 1),
        "question_p95_ms": round(1000 * float(np.percentile(took, 95)), 2),
        "stored_mb": round(stored / 2**20, 1),
    }


def _paragraph(words: Sequence[str], weights: Sequence[float], chance: random.Random) -> str:
    """Six sentences of 15 words."""
    return ". ".join(" ".join(chance.choices(words, weights, k=15)) for _ in range(6))


def _write_pages(
    folder: Path, words: Sequence[str], weights: Sequence[float], chance: random.Random
) -> Iterator[Path]:
    for number in range(FILES):
        pages = [
            [_paragraph(words, weights, chance) for _ in range(WORDS_A_PAGE // 90)]
            for _ in range(PAGES_A_FILE)
        ]
        if number % 2:
            file = folder / f"{number}.pdf"
            file.write_bytes(pdf_of([". ".join(page).split(". ") for page in pages]))
        else:
            file = folder / f"{number}.md"
            headed = (f"# Page {n}\n\n" + "\n\n".join(page) for n, page in enumerate(pages))
            file.write_text("\n\n".join(headed))
        yield file


if __name__ == "__main__":
    main()

"""A collection as a retriever of langchain. Knows langchain's interface alone."""

from __future__ import annotations

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from feedback_store.documents.library import Collection, Library
from feedback_store.documents.retrieval import FOUND, find_passages


class CollectionRetriever(BaseRetriever):
    """A retriever of langchain over one collection; what is added to it is found at once.

    Metadata of the passages: "source" (the document's name), "document" (its id), "passage" (its
    number there), "score", and "page" or "heading".
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)
    library: Library
    collection: Collection
    k: int = FOUND

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return find_passages(self.library, self.collection, query, self.k)

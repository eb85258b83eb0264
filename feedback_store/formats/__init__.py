"""Feedback in and out of files that others write and read.

`import_file` takes over what a file holds, all or nothing; `export_examples` writes examples for
other tools. One small module a format; `catalogue` lists those that come in, `exporting` those
that go out. Knows value types and files; knows nothing of SQL.
"""

from feedback_store.formats.catalogue import IMPORT_FORMATS
from feedback_store.formats.exporting import EXPORT_FORMATS, export_examples
from feedback_store.formats.importing import (
    ConversationReport,
    ImportReport,
    import_conversations,
    import_file,
)
from feedback_store.formats.turns import Ranks

__all__ = [
    "EXPORT_FORMATS",
    "IMPORT_FORMATS",
    "ConversationReport",
    "ImportReport",
    "Ranks",
    "export_examples",
    "import_conversations",
    "import_file",
]

"""The routes of the pages: conversations, answers, votes, documents, comparisons, own feedback."""

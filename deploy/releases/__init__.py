"""The release record: which bundles are releases, which one is live, and what happened to each."""

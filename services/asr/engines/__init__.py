"""One file per model family, imported only when it is chosen."""

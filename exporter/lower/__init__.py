"""One graph pass per file: from float skeleton to what a target runs."""

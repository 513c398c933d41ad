"""Directories of the library sentence-transformers, read and written."""

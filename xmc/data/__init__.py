"""Data sets: the canonical directory, readers for the field's formats, and token caches."""

"""Damaged inputs of every format: what damages them, what reads them, and what may come of it."""

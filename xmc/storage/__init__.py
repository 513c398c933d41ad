"""Directories that are whole or absent, Arrow files, and fingerprints."""

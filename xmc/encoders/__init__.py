"""Encoders: texts in, embeddings out."""

"""Transformer encoders: pretrained encoders, and decoder-only language models."""

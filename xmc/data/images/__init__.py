"""Image embeddings that come with texts."""

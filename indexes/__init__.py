"""Label indexes: maximum inner product search over label embeddings."""

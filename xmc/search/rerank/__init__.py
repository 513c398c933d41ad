"""Re-ranking: the first candidates of a search scored anew by a model over several features."""

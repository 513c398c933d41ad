"""A memory of judged queries: the labels of the nearest ones join the candidates of a search, and their votes its scores."""

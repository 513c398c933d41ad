"""From a query to an answer: labels, filters, and the retriever over them."""

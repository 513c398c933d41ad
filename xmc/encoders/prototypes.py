"""Label prototypes: a label's text, a vector shared by its cluster and its queries' centroid, combined by one layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmc.errors import ConfigError

__all__ = ["LabelPrototypes"]


class LabelPrototypes(nn.Module):
    """c_l = mean over t of Layer([z_l, v_{κ(l)}, q̄_l])_t, the label prototype network of PRIME.

    z_l is the unit embedding of the label's text, v_{κ(l)} the free vector of its cluster and q̄_l the mean embedding of the
    training queries that it is a positive of; Layer is one transformer layer with its norms after its parts. A label
    without training queries has no q̄, which is left out of attention and mean: it falls back to what it has. Each part
    adds nothing at first (its last matrix is zero), so that training starts at the mean of the three, normalised.

    Which cluster and centroid a label has is known while training only: `members` holds it, on the CPU, for the labels that
    this process has. A label that comes later goes to the cluster whose mean is nearest to its text, without a centroid.

    Source: Dahiya et al., Prototypical Extreme Multi-label Classification with a Dynamic Margin Loss (PRIME), NAACL 2025,
    section 3.
    """

    def __init__(
        self, dimension: int, clusters: int, heads: int = 8, feedforward: int = 1024, dropout: float = 0.1
    ) -> None:
        """clusters: number of free vectors. Raises ConfigError where the number of heads does not divide the dimension."""
        super().__init__()
        if dimension % heads:
            raise ConfigError(
                f"label_vectors.heads must divide the embedding's {dimension} dimensions, but is {heads}; set it to another."
            )
        self.free_vectors = nn.Parameter(torch.zeros(clusters, dimension))
        self.combiner = nn.TransformerEncoderLayer(dimension, heads, feedforward, dropout, "gelu", batch_first=True)
        nn.init.zeros_(self.combiner.self_attn.out_proj.weight)
        nn.init.zeros_(self.combiner.linear2.weight)
        nn.init.zeros_(self.combiner.linear2.bias)
        self.register_buffer("means", torch.zeros(clusters, dimension))
        self.means: Tensor
        self.clusters = torch.zeros(0, dtype=torch.int64)
        """int64 [L'], the cluster of each label of this process."""
        self.centroids = torch.zeros(0, dimension)
        """[L', D], the mean of its queries' embeddings; zero where it has none."""
        self.has_queries = torch.zeros(0, dtype=torch.bool)
        """bool [L'], whether it has any."""

    @torch.no_grad()
    def begin(self, texts: Tensor, clusters: Tensor, generator: torch.Generator | None) -> None:
        """Clusters' means from all labels' unit text embeddings [L, D] and clusters int64 [L], and the free vectors.

        generator: for Xavier's uniform initialisation of these; None to start at the means.
        """
        texts = texts.to(self.means)
        clusters = clusters.to(self.means.device)
        sizes = torch.bincount(clusters, minlength=len(self.means)).clamp_min(1)
        self.means.zero_().index_add_(0, clusters, texts).div_(sizes[:, None])
        if generator is None:
            self.free_vectors.copy_(self.means)
        else:
            start = torch.empty(self.free_vectors.shape)
            self.free_vectors.copy_(nn.init.xavier_uniform_(start, generator=generator))

    def forward(self, texts: Tensor, rows: Tensor) -> Tensor:
        """Prototypes [n, D], not normalised, of the labels `rows` (int64 [n]) of this process, given their texts' [n, D]."""
        rows = rows.cpu()
        members = (values[rows].to(texts.device) for values in (self.clusters, self.centroids, self.has_queries))
        return self._combined(texts, *members)

    def of_new(self, texts: Tensor) -> Tensor:
        """Prototypes [n, D], not normalised, of labels that come after training, by their unit text embeddings [n, D]."""
        clusters = (texts.to(self.means) @ self.means.T).argmax(1)
        return self._combined(texts, clusters, torch.zeros_like(texts), torch.zeros_like(clusters, dtype=torch.bool))

    def _combined(self, texts: Tensor, clusters: Tensor, centroids: Tensor, has_queries: Tensor) -> Tensor:
        if not len(texts):
            return texts
        parts = torch.stack([texts, self.free_vectors[clusters].to(texts), centroids.to(texts)], dim=1)
        absent = torch.zeros(len(texts), 3, dtype=torch.bool, device=texts.device)
        absent[:, 2] = ~has_queries
        combined: Tensor = self.combiner(parts, src_key_padding_mask=absent)
        present = (~absent).to(combined)[:, :, None]
        return (torch.where(present > 0, combined, 0.0)).sum(1) / present.sum(1)

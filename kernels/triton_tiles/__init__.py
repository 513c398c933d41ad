"""The tile engine in Triton: for CUDA, and for a CPU through Triton's interpreter.

A product kernel is a persistent grid over tiles of scores: operands come through tensor descriptors (`product`, `scores`), a
tile is a `tl.dot` that is reduced in registers (`reduce`), or turned into the gradients of its scores (`gradient`) in a buffer
for some labels, from which matrix products of the vendor's library make the gradients of queries and labels. Pairs that
are not like all others never enter a product kernel's loop: what a sum leaves out is bits beside the tiles (`masks`); scores
and gradients of single pairs have small kernels of their own (`pairs`). `engine` puts them together.

`topk` searches: the best score of each group of labels (`maxima`), the best groups of each row (`selection`), their labels
scored again (`candidates`), ranked as integers of one order (`keys`), in the way that `search_plan` lays down.
"""

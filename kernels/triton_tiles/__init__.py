"""The tile engine in Triton: for CUDA, and for a CPU through Triton's interpreter.

A tile of scores is a `tl.dot` that is reduced in registers (`reduce`); its gradient is computed from the same product
(`gradient`) into a buffer for some labels, from which matrix products of the vendor's library make the gradients of queries
and labels. `engine` puts them together; `topk` searches.
"""

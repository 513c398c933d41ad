"""Attention over segments in Triton: for CUDA, and for a CPU through Triton's interpreter.

A program takes a block of neighbouring tokens of the run, however many segments they belong to, and the tokens that some
segment of the block reaches: work is about T · (block + longest segment), and texts of seven tokens share their blocks.
`bounds` finds the segment of each token, `tiles` is what both passes compute alike, `shapes` says how large blocks are.
"""

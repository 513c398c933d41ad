"""What judges a retriever: metrics of a split, calibration, and checks of it."""

"""What training takes for true: known pairs, and what a teacher says."""

"""Other libraries: scikit-learn."""

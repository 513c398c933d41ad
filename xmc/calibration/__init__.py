"""Scores to act on: calibrated probabilities, label sets with a guarantee, decisions, and checks of all of these."""

"""The static encoder: hashed features of a text, summed."""

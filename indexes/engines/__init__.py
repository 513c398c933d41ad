"""The engines of index designs: one file a library or device."""

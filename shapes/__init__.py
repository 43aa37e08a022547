"""Rendered scenes and their captions: what the suite `Shapes8` and the encoder `tiny` are made of."""

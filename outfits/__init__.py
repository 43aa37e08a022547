"""Rendered figures and their captions: what the suite `Outfits16` and the encoder `tiny` are made of."""

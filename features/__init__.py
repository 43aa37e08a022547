"""Images, augmented, and their features, which are made once and kept; `python -m features list` lists them."""

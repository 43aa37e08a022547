"""Linear probe on CLIP's frozen image features."""

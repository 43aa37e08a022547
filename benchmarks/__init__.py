"""Measure speed and memory of this implementation against the plain way to compute the same."""

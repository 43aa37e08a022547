"""Downloads public datasets, unpacks them, and says what is missing or unusual: `python -m datasets.prepare`."""

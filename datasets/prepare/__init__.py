"""Download, unpack and check public datasets: `python -m datasets.prepare`."""

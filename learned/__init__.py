"""What runs have learned, put to use: loading it from their folders, predicting, exporting, one page of it all."""

"""What a run has learned, put to use: loading it from the run's folder, predicting, exporting; and a page of many runs."""

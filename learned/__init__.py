"""Uses what runs have learned: loads it from their folders, predicts, exports, makes a report."""

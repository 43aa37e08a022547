"""Accuracy tables: runs read from logs (`logs.py`) or `results.json` (`runs.py`), and how tables and charts look."""

"""A run folder has one owner, this package.

It knows what a run's settings are and where they were set (`keys.py`, `config.py`), what identifies it (`identity.py`),
its files, lock and log (`folder.py`, `log.py`), its checkpoints (`checkpoints.py`) and results (`results.py`,
`outcome.py`), how a program that works in it ends (`program.py`), and how tables read it (`experiments.py`, `logs.py`,
`tables.py`, `compare.py`).
"""

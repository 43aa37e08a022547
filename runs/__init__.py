"""The run folder.

It has settings (`keys.py`, `config.py`, `commands.py`), an identity (`identity.py`), files, a lock and a log
(`folder.py`, `log.py`), checkpoints (`checkpoints.py`) and results (`results.py`, `outcome.py`). Tables are made of run
folders (`experiments.py`, `logs.py`, `tables.py`, `compare.py`). `methods.py` registers the methods.
"""

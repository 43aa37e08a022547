"""Makes the runs of a results table in parallel on a Ray cluster; `sweep.py` is its command.

`jobs.py` lists the runs, `engine.py` gives them to workers and repeats failed ones, `cluster.py` starts or joins Ray,
`worker.py` is a process that makes one run after the other, and `warm.py` makes a run in it.
"""

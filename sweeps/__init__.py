"""The runs of a results table at once, on the cores, GPUs and machines of a Ray cluster; `sweep.py` is its command.

`jobs.py` lists the runs; `engine.py` gives them to workers and does failed ones again;
`cluster.py` starts or joins Ray; `worker.py` is a process that does one run after the other, `warm.py` what it does.
"""

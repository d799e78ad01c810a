"""Sweeps of the supernet's recipe: Ray Tune runs the trials, Optuna proposes them, ASHA stops most.

- driving: from a study file to a finished sweep; the process that writes to the database
- comparable: which trials may share a sweep
- workers: room for trials on a Ray
- tuning: a run of Ray Tune, in a process without torch
- report: what a trial sends to that process
- trial: what a worker does; it trains a supernet, and scores random subnets of it on the way
- recipes: from the section [sweep] to Optuna's distributions, and when trials are compared
"""

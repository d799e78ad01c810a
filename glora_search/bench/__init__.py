"""The bench: methods compared on the same tasks, splits and seeds, with paired intervals.

suites (which tasks) -> plan (which runs are missing) -> schedule (here or on Ray) -> execute (one
run) -> layout (means over tasks) -> table.
"""

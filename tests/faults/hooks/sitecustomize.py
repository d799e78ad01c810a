"""Faults inside of evaluations, for processes that Ray starts: Python imports this by its name.

What is done is told by the environment: JSON, `sleep_s`, and of all subnets one in `one_in` that
is to end its process (`deadly`), raise an error (`raises`), or give logits that are no numbers
(`nan`). Nothing of it is in the product.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time

VARIABLE = "GLORA_SEARCH_TEST_FAULT"
_PATCHED = "supernet.subnet_evaluator"


def is_chosen(digest, one_in):
    """Whether the subnet of that digest is one of those with the fault."""
    return int(digest[:8], 16) % one_in == 0


def patch(module):
    """Give the evaluator of subnets the faults that the environment asks for."""
    fault = json.loads(os.environ[VARIABLE])
    real = module.SubnetEvaluator._queue

    def queue(self, subnet, step, batch):
        time.sleep(fault.get("sleep_s", 0.0))
        kind = fault.get("kind")
        if kind is None or not is_chosen(subnet.digest, fault["one_in"]):
            return real(self, subnet, step, batch)
        if kind == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "raises":
            raise RuntimeError("told to fail")
        nan = self._model.head.register_forward_hook(lambda _m, _i, logits: logits * float("nan"))
        try:
            return real(self, subnet, step, batch)
        finally:
            nan.remove()

    module.SubnetEvaluator._queue = queue


class _Finder(importlib.abc.MetaPathFinder):
    """Patches the module when it is imported."""

    def find_spec(self, name, path, target=None):
        if name != _PATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


def install():
    """Patch now, if the module is there, or else when it comes."""
    if VARIABLE not in os.environ:
        return
    if _PATCHED in sys.modules:
        patch(sys.modules[_PATCHED])
    else:
        sys.meta_path.insert(0, _Finder())


if __name__ == "sitecustomize":
    install()

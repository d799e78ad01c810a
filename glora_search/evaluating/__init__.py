"""Evaluates candidates, in this process or on Ray actors. Both keep one protocol."""

from glora_search.evaluating.protocol import Evaluator, SubnetScorer

__all__ = ["Evaluator", "SubnetScorer"]

"""From candidates to outcomes: in this process, or on Ray actors; one protocol for both."""

from glora_search.evaluating.protocol import Evaluator

__all__ = ["Evaluator"]

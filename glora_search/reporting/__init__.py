"""The report on a study: pictures and tables as one HTML file that needs no network.

Reads what the database holds and nothing else: neither torch nor timm nor Ray is imported. Each
picture is a pure function from outcomes to a figure, in a file of its own; `page` puts them
together.
"""

from glora_search.reporting.comparison import write_comparison
from glora_search.reporting.writing import write_report

__all__ = ["write_comparison", "write_report"]

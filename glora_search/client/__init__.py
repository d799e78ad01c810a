"""A client of a server: `from glora_search.client import Client`.

Needs `httpx`, which comes with `pip install 'glora-search[server]'`; neither torch nor a database.
"""

from glora_search.client.answers import Export, ExportFile, Outcome, Readiness, Status
from glora_search.client.client import Client
from glora_search.client.errors import ServerUnavailableError, ServiceError
from glora_search.client.events import Event

__all__ = [
    "Client",
    "Event",
    "Export",
    "ExportFile",
    "Outcome",
    "Readiness",
    "ServerUnavailableError",
    "ServiceError",
    "Status",
]

"""The page: studies as HTML, live, without a build step and without a network.

The server renders everything, figures included. A little script fetches what has changed. Without
it all pages and forms work, but one has to reload.
"""

from glora_search.server.page.routes import router

__all__ = ["router"]

"""The page: studies as HTML, live, without a build step and without a network.

The server renders everything, figures included. A little script fetches what has changed. Without
it all pages and forms work, but one has to reload.
"""

from fastapi import APIRouter

from glora_search.server.page import actions, routes

router = APIRouter(include_in_schema=False)
router.include_router(routes.router)
router.include_router(actions.router)

__all__ = ["router"]

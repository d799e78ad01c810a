"""`python -m glora_search` is the command line."""

from glora_search.cli.commands import main

main()

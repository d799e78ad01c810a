"""The stages of a study, in their order: prepare, train the supernet, search, export."""

"""The service: study files, proposals, evaluators, the database, and the loop that joins them."""

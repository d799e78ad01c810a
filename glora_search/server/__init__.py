"""The service over HTTP: a REST interface over the operations, and server-sent events."""

"""What can be done with studies: the functions behind the command line and the Python API."""

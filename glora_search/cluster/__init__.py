"""What runs or is kept on other machines: the connection to Ray, jobs, training, artifacts."""

"""Runs vLLM beside the project: an environment of its own, a server in it, and one server for all arms of a run."""

"""Turns a run's configuration into what each stage will take, and a finished run into how far off that was."""

"""What the commands of this package do, one module a verb: `run(settings, bars)` and `say(result)`."""

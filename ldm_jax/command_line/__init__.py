"""What the command line of `sample.py` says, checked, and as arguments of the package."""

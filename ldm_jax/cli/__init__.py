"""What command lines say, checked, and as arguments of the package."""

"""Small changes of a model that are kept beside it: what kinds there are, merging them into its
parameters, and applying them from outside."""

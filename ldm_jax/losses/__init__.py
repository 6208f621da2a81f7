"""The losses of stage one and the measures of its pictures: mathematics on arrays."""

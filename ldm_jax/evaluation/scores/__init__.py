"""Scores of sets of images, as functions of the features that a network sees in them."""

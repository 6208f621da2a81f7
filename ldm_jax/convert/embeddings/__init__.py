"""Embeddings of new words (textual inversion) in the files of other programs, read and written."""

"""Hypernetworks in the files of the web UI, read and written."""

"""Adapters in the files of other programs: LoRA and its relatives, read and written."""

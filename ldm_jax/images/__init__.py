"""Pictures on the host: grids, PNG files and the text that they carry, masks."""

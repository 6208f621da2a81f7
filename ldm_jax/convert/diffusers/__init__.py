"""diffusers' folders: what their JSON files say, read and written."""
